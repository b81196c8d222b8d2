//! Who should hold which shard: pure, so that every member comes to the same answer alone.
use std::sync::Arc;

/// Keys fall into so many shards. It is part of what is stored: it never changes.
pub const COUNT: u32 = 64;

/// FNV-1a with a final mix. Stored rows and other versions of this program depend on it: it never changes.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.iter().flat_map(|p| p.iter().chain(&[0xff])) {
        h = (h ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^ (h >> 33)
}

/// The shard of a key, or of the name of work that is done in one place.
pub fn shard_of(key: &str) -> u32 {
    // Less than COUNT, so it fits.
    u32::try_from(hash(&[key.as_bytes()]) % u64::from(COUNT)).unwrap_or_default()
}

/// The member that should hold the shard: rendezvous hashing, so a member that comes or goes moves only its own share.
pub(crate) fn wanted(members: &[Arc<str>], shard: u32) -> Option<&Arc<str>> {
    members.iter().max_by_key(|m| (hash(&[m.as_bytes(), &shard.to_be_bytes()]), *m))
}

/// What a shard's row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) holder: Arc<str>,
    /// Grows with every change of hands.
    pub(crate) epoch: u64,
}

/// What a member has to do about one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is ours, at this epoch.
    Keep(u64),
    /// It is ours and should be this member's.
    Give(Arc<str>),
    /// Nobody who lives holds it, and we should.
    Take,
    /// It is somebody else's, or will be.
    None,
}

/// `members` are those that live.
pub(crate) fn step(me: &str, members: &[Arc<str>], shard: u32, owner: Option<&Owner>) -> Step {
    // The view has not seen us join yet, or has seen our end.
    if !members.iter().any(|m| **m == *me) {
        return Step::None;
    }
    let Some(wanted) = wanted(members, shard) else { return Step::None };
    match owner {
        Some(o) if *o.holder == *me && **wanted == *me => Step::Keep(o.epoch),
        Some(o) if *o.holder == *me => Step::Give(wanted.clone()),
        Some(o) if members.contains(&o.holder) => Step::None,
        _ if **wanted == *me => Step::Take,
        _ => Step::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Vec<Arc<str>> {
        of.iter().map(|n| Arc::from(*n)).collect()
    }

    #[test]
    fn hashes_are_what_they_always_were() {
        assert_eq!(hash(&[b"compute/servers/1"]), 0xD52D_AD15_B680_5C35);
        assert_eq!(shard_of("network"), 61);
    }

    #[test]
    fn members_share_and_only_the_share_of_one_that_leaves_moves() {
        let (three, two) = (names(&["a", "b", "c"]), names(&["a", "c"]));
        let mut counts = [0; 3];
        for shard in 0..COUNT {
            let at = three.iter().position(|m| Some(m) == wanted(&three, shard)).unwrap();
            counts[at] += 1;
            if at != 1 {
                assert_eq!(wanted(&three, shard), wanted(&two, shard));
            }
        }
        assert!(counts.iter().all(|n| (10..=34).contains(n)), "{counts:?}");
    }

    #[test]
    fn a_shard_is_taken_from_the_dead_and_given_by_the_living() {
        let members = names(&["a", "b"]);
        let shard = (0..COUNT).find(|s| wanted(&members, *s).is_some_and(|m| **m == *"a")).unwrap();
        let owner = |holder: &str| Owner { holder: holder.into(), epoch: 7 };
        assert_eq!(step("a", &members, shard, None), Step::Take);
        assert_eq!(step("b", &members, shard, None), Step::None);
        assert_eq!(step("a", &members, shard, Some(&owner("a"))), Step::Keep(7));
        assert_eq!(step("b", &members, shard, Some(&owner("b"))), Step::Give("a".into()));
        assert_eq!(step("a", &members, shard, Some(&owner("b"))), Step::None, "b lives and gives it itself");
        assert_eq!(step("a", &members, shard, Some(&owner("dead"))), Step::Take);
        assert_eq!(step("dead", &members, shard, Some(&owner("dead"))), Step::None, "who is no member holds nothing");
    }
}
