//! Ids. OpenStack has two spellings of a UUID: with dashes (Nova, Neutron, Glance) and 32 hex digits (Keystone).
use std::fmt;

/// A new random UUID with dashes.
#[expect(clippy::disallowed_methods, reason = "the one place where ids are made")]
pub fn uuid() -> String {
    uuid::Uuid::new_v4().hyphenated().to_string()
}

/// A new random UUID as 32 hex digits, the form of Keystone's ids.
#[expect(clippy::disallowed_methods, reason = "the one place where ids are made")]
pub fn hex() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// `req-<uuid>`: the id that follows a request through rows, reconcile steps and node actions.
pub fn request_id() -> String {
    format!("req-{}", uuid())
}

/// Is it a UUID in either spelling?
pub fn is_uuid(text: &str) -> bool {
    matches!(text.len(), 32 | 36) && uuid::Uuid::try_parse(text).is_ok()
}

/// The same UUID for the same name, for things that must be found again without a look-up.
pub fn named(name: &str) -> String {
    const SPACE: uuid::Uuid = uuid::uuid!("7d2f7b0c-6f5e-4c39-9a53-5d1f1c4bfa27");
    uuid::Uuid::new_v5(&SPACE, name.as_bytes()).hyphenated().to_string()
}

/// Declares an id type: a string that cannot be mixed up with another resource's id.
#[macro_export]
macro_rules! id_type {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);
        impl $name {
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(&self.0) }
        }
        impl From<&str> for $name { fn from(s: &str) -> Self { Self(s.to_owned()) } }
        impl From<String> for $name { fn from(s: String) -> Self { Self(s) } }
        impl AsRef<str> for $name { fn as_ref(&self) -> &str { &self.0 } }
    )+};
}

/// A MAC address in the locally administered range OpenStack uses (`fa:16:3e` + 24 random bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);
impl Mac {
    pub fn random() -> Self {
        let [a, b, c] = rand::random::<[u8; 3]>();
        Self([0xfa, 0x16, 0x3e, a, b, c])
    }
    /// Reads six hex octets joined by `:` or `-`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut out = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for o in &mut out {
            let p = parts.next().filter(|p| (1..=2).contains(&p.len()))?;
            *o = u8::from_str_radix(p, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(out))
    }
}
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_in_both_spellings() {
        assert!(is_uuid(&uuid()) && is_uuid(&hex()));
        assert!(!is_uuid("not-a-uuid") && !is_uuid(""));
        assert_eq!(named("a"), named("a"));
    }

    #[test]
    fn macs_parse_and_print() {
        let m = Mac::parse("FA-16-3e-0:1:2").map(|m| m.to_string());
        assert_eq!(m.as_deref(), Some("fa:16:3e:00:01:02"));
        assert_eq!(Mac::parse("fa:16:3e:00:01"), None);
        assert_eq!(Mac::parse("fa:16:3e:00:01:02:03"), None);
    }
}
