//! Where things are in etcd. Everything of one cloud is below `CLOUD/`, so that clouds can share an etcd.
//!
//! ```text
//!  CLOUD/form                 the form of all this, "1"
//!  CLOUD/r/KEY                a row
//!  CLOUD/s/LEASE/NUMBER       a slot: the last transaction that went through it
//!  CLOUD/l/LEASE              there as long as a lease that has rows is
//! ```
use store::StoreError;

#[derive(Clone, Debug)]
pub(crate) struct Keys {
    root: String,
}

impl Keys {
    pub(crate) fn of(cloud: &str) -> Result<Self, StoreError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if cloud.is_empty() || !cloud.chars().all(fits) {
            return Err(StoreError::Unavailable(format!(
                "{cloud:?} cannot name a cloud in etcd; use letters, digits, '-', '_' and '.'"
            )));
        }
        Ok(Self { root: format!("{cloud}/") })
    }

    pub(crate) fn all(&self) -> (Vec<u8>, Vec<u8>) {
        span(self.root.clone().into_bytes())
    }
    pub(crate) fn form(&self) -> Vec<u8> {
        format!("{}form", self.root).into_bytes()
    }
    pub(crate) fn row(&self, key: &str) -> Vec<u8> {
        format!("{}r/{key}", self.root).into_bytes()
    }
    pub(crate) fn rows(&self, prefix: &str) -> (Vec<u8>, Vec<u8>) {
        span(self.row(prefix))
    }
    pub(crate) fn slot(&self, session: i64, number: u32) -> Vec<u8> {
        format!("{}s/{session:016x}/{number}", self.root).into_bytes()
    }
    pub(crate) fn slots(&self) -> (Vec<u8>, Vec<u8>) {
        span(format!("{}s/", self.root).into_bytes())
    }
    pub(crate) fn lease(&self, lease: i64) -> Vec<u8> {
        format!("{}l/{lease:016x}", self.root).into_bytes()
    }
    pub(crate) fn leases(&self) -> (Vec<u8>, Vec<u8>) {
        span(format!("{}l/", self.root).into_bytes())
    }

    /// The row's key, of one that is a row's.
    pub(crate) fn strip<'k>(&self, key: &'k [u8]) -> Option<Result<&'k str, StoreError>> {
        let row = key.strip_prefix(self.root.as_bytes())?.strip_prefix(b"r/")?;
        Some(std::str::from_utf8(row).map_err(|_| {
            StoreError::Damaged(format!(
                "the key {:?} is no text; another program wrote into this prefix",
                key.escape_ascii().to_string()
            ))
        }))
    }
}

/// All keys that begin with `prefix`, as etcd's half-open range.
fn span(prefix: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let mut end = prefix.clone();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    (prefix, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_holds_what_begins_with_it_and_nothing_else() {
        assert_eq!(span(b"a/".into()), (b"a/".to_vec(), b"a0".to_vec()));
        assert_eq!(span(b"a\xff\xff".into()).1, b"b");
    }

    #[test]
    fn clouds_do_not_overlap() {
        assert!(Keys::of("a/b").is_err() && Keys::of("").is_err());
        let (a, b) = (Keys::of("a").unwrap(), Keys::of("a-b").unwrap());
        let (start, end) = a.all();
        assert!(b.row("x") < start || b.row("x") >= end);
        assert_eq!(a.strip(&a.row("t/x")).unwrap().unwrap(), "t/x");
        assert!(a.strip(&a.slot(1, 2)).is_none() && a.strip(&b.row("x")).is_none());
        assert!(a.strip(b"a/r/\xff").unwrap().is_err());
    }
}
