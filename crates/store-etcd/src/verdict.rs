//! What a failed call means: whether it was carried out, whether to ask elsewhere, and what the caller is told.
use store::StoreError;
use tonic::{Code, ConnectError, Status};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Surely not carried out; another member, or this one later, may well do it.
    Elsewhere,
    /// As `Elsewhere`, but the cluster is overloaded rather than this member unfit.
    Later,
    /// Surely not carried out, and nobody will.
    Refused,
    /// It may have been carried out, or still be.
    Doubt,
}

pub(crate) const LEASE_NOT_FOUND: &str = "requested lease not found";
pub(crate) const COMPACTED: &str = "required revision has been compacted";
pub(crate) const FUTURE: &str = "required revision is a future revision";
const NO_SPACE: &str = "database space exceeded";
/// Both of etcd itself and of the gRPC library below it.
const TOO_LARGE: &[&str] = &["request is too large", "received message larger than max"];
const CORRUPT: &str = "corrupt cluster";

/// An election is going on, or this member is cut off from the leader.
const NO_LEADER: &str = "etcdserver: no leader";
/// An election has just ended.
const LEADER_CHANGED: &str = "etcdserver: leader changed";
/// Refusals before the request went into the log, by the words of etcd's error.
const ELSEWHERE: &[&str] = &[NO_LEADER, "etcdserver: not leader", "raft proposal dropped", "rpc not supported for learner"];
const REFUSED: &[&str] = &[LEASE_NOT_FOUND, COMPACTED, FUTURE, NO_SPACE, CORRUPT, "too many operations", "duplicate key"];

pub(crate) fn says(status: &Status, words: &str) -> bool {
    status.message().contains(words)
}

/// No connection: the request never left.
fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(e) = cause {
        if e.is::<ConnectError>() {
            return true;
        }
        cause = e.source();
    }
    false
}

pub(crate) fn verdict(status: &Status) -> Verdict {
    if never_sent(status) || ELSEWHERE.iter().any(|w| says(status, w)) {
        return Verdict::Elsewhere;
    }
    if says(status, "etcdserver: too many requests") {
        return Verdict::Later;
    }
    let refused_by_kind = matches!(
        status.code(),
        Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented | Code::FailedPrecondition
    );
    if refused_by_kind || REFUSED.iter().chain(TOO_LARGE).any(|w| says(status, w)) { Verdict::Refused } else { Verdict::Doubt }
}

/// What an answer says of a member that has none, or had none a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leader {
    /// Whether the cluster has none either, or this member is cut off from it, cannot be told from this answer alone.
    Missing,
    /// The member knows the new one.
    Changed,
}

pub(crate) fn leader(status: &Status) -> Option<Leader> {
    let missing = says(status, NO_LEADER).then_some(Leader::Missing);
    missing.or_else(|| says(status, LEADER_CHANGED).then_some(Leader::Changed))
}

/// What to tell the caller of a call that was not carried out, or that only read.
pub(crate) fn store_error(status: &Status) -> StoreError {
    if says(status, NO_SPACE) {
        return StoreError::Full(
            "etcd's database has reached its quota; free it with a compaction and a defragmentation, or raise --quota-backend-bytes"
                .into(),
        );
    }
    if says(status, CORRUPT) {
        return StoreError::Damaged(
            "etcd says that its members differ; restore a snapshot or replace the member that is wrong".into(),
        );
    }
    if TOO_LARGE.iter().any(|w| says(status, w)) {
        return StoreError::Full(
            "a transaction has more bytes than etcd takes; raise --max-request-bytes on its members, or write less at once"
                .into(),
        );
    }
    if says(status, "too many operations") {
        return StoreError::Full(
            "a transaction has more operations than etcd takes; raise --max-txn-ops on its members and say so here".into(),
        );
    }
    let advice = match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => "check the client certificate and etcd's users",
        _ => "check that a majority of etcd's members runs and can be reached",
    };
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = e.source();
    }
    StoreError::Unavailable(format!("etcd: {text}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_surely_did_not_happen_is_sent_again() {
        let of = |code, text: &str| verdict(&Status::new(code, text));
        assert_eq!(of(Code::Unavailable, "etcdserver: no leader"), Verdict::Elsewhere);
        assert_eq!(of(Code::Unknown, "raft proposal dropped"), Verdict::Elsewhere);
        assert_eq!(of(Code::ResourceExhausted, "etcdserver: too many requests"), Verdict::Later);
        for doubtful in [
            "etcdserver: request timed out",
            "etcdserver: request timed out, possibly due to previous leader failure",
            "etcdserver: request timed out, possibly due to connection lost",
            "etcdserver: server stopped",
            "etcdserver: leader changed",
            "transport error",
        ] {
            assert_eq!(of(Code::Unavailable, doubtful), Verdict::Doubt, "{doubtful}");
        }
        assert_eq!(of(Code::Cancelled, ""), Verdict::Doubt);
        assert_eq!(of(Code::DeadlineExceeded, ""), Verdict::Doubt);
        assert_eq!(of(Code::NotFound, "etcdserver: requested lease not found"), Verdict::Refused);
        assert_eq!(of(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"), Verdict::Refused);
        assert_eq!(of(Code::InvalidArgument, "etcdserver: too many operations in txn request"), Verdict::Refused);
    }

    #[test]
    fn who_has_no_leader_is_told_from_who_has_a_new_one() {
        let of = |text: &str| leader(&Status::new(Code::Unavailable, text));
        assert_eq!(of("etcdserver: no leader"), Some(Leader::Missing));
        assert_eq!(of("etcdserver: leader changed"), Some(Leader::Changed));
        assert_eq!(of("etcdserver: request timed out, possibly due to previous leader failure"), None);
    }

    #[test]
    fn errors_say_what_to_do() {
        let of = |text: &str| store_error(&Status::new(Code::ResourceExhausted, text));
        assert!(matches!(of("etcdserver: mvcc: database space exceeded"), StoreError::Full(t) if t.contains("quota")));
        assert!(
            matches!(of("etcdserver: too many operations in txn request"), StoreError::Full(t) if t.contains("--max-txn-ops"))
        );
        assert!(matches!(of("etcdserver: request is too large"), StoreError::Full(t) if t.contains("--max-request-bytes")));
        assert!(matches!(of("etcdserver: corrupt cluster"), StoreError::Damaged(_)));
        assert!(matches!(of("anything"), StoreError::Unavailable(_)));
    }
}
