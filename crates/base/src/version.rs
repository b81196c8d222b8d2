//! API microversions: two numbers, compared in order.
use std::fmt;

/// `2.96` of `OpenStack-API-Version: compute 2.96`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Version(pub u16, pub u16);

impl Version {
    pub const MIN: Self = Self(0, 0);
    pub const MAX: Self = Self(u16::MAX, u16::MAX);

    /// For literals in tables; anything that is not `N.N` does not compile into a table.
    pub const fn of(s: &str) -> Self {
        match Self::read(s.as_bytes()) {
            Some(v) => v,
            None => panic!("a version literal is two numbers with a dot"),
        }
    }
    /// For text from outside.
    pub fn parse(s: &str) -> Option<Self> {
        Self::read(s.as_bytes())
    }
    const fn read(b: &[u8]) -> Option<Self> {
        let (mut part, mut digits, mut seen_dot, mut major, mut i) = (0u32, 0, false, 0u16, 0);
        while i < b.len() {
            match b[i] {
                b'.' if !seen_dot && digits > 0 => {
                    major = part as u16;
                    (part, digits, seen_dot) = (0, 0, true);
                }
                d @ b'0'..=b'9' => {
                    part = part * 10 + (d - b'0') as u32;
                    digits += 1;
                    if part > u16::MAX as u32 {
                        return None;
                    }
                }
                _ => return None,
            }
            i += 1;
        }
        if seen_dot && digits > 0 { Some(Self(major, part as u16)) } else { None }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_numbers_are_a_version() {
        assert_eq!(Version::parse("2.96"), Some(Version(2, 96)));
        for bad in ["", "2", "2.", ".1", "2.1.0", "2.x", "2.99999", "-2.1"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
