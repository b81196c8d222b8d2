//! Texts of LDAP: filters (RFC 4515) and names (RFC 4514). What comes from outside enters them only through here.
use ldap3::ldap_escape;

/// Active Directory's rule that follows members of members.
const IN_CHAIN: &str = "1.2.840.113556.1.4.1941";

/// Is it an attribute description or an object identifier, so that it may stand in a filter as it is?
pub(crate) fn is_attribute(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    starts && text.len() <= 255 && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ';'))
}

/// `(attribute=value)`
pub(crate) fn equals(attribute: &str, value: &str) -> String {
    format!("({attribute}={})", ldap_escape(value))
}

/// `(attribute:rule:=value)`: also those that are meant through others.
pub(crate) fn in_chain(attribute: &str, value: &str) -> String {
    format!("({attribute}:{IN_CHAIN}:={})", ldap_escape(value))
}

/// `(attribute=*)`
pub(crate) fn present(attribute: &str) -> String {
    format!("({attribute}=*)")
}

/// `(&(a)(b))`; empty parts are left out.
pub(crate) fn all<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    format!("(&{})", parts.into_iter().collect::<String>())
}

/// Cuts at characters that no backslash or quotes protect.
fn split(text: &str, at: impl Fn(char) -> bool) -> Vec<&str> {
    let (mut out, mut start, mut escaped, mut quoted) = (Vec::new(), 0, false, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            c if !quoted && at(c) => {
                out.push(&text[start..i]);
                start = i + c.len_utf8();
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

/// The value of an attribute in a name, without its escapes. `None` for what is no UTF-8.
fn unescape(value: &str) -> Option<String> {
    // A space at the end counts only when it is escaped.
    let kept = value.trim_end_matches(' ');
    let spaced = kept.len() < value.len() && kept.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1;
    let value = value[..kept.len() + usize::from(spaced)].trim_start();
    let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.bytes().peekable();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        let next = bytes.next()?;
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        match (digit(next), bytes.peek().and_then(|b| digit(*b))) {
            (Some(high), Some(low)) => {
                bytes.next();
                out.push(high << 4 | low);
            }
            _ => out.push(next),
        }
    }
    String::from_utf8(out).ok()
}

/// The value of an attribute in the first part of a name: `cn` of `cn=a,ou=b` is `a`.
pub(crate) fn rdn(dn: &str, attribute: &str) -> Option<String> {
    let first = *split(dn, |c| matches!(c, ',' | ';')).first()?;
    split(first, |c| c == '+').into_iter().find_map(|part| {
        let (name, value) = part.split_once('=')?;
        if name.trim().eq_ignore_ascii_case(attribute) { unescape(value) } else { None }
    })
}

/// A form of a name that equal names share: case and spaces around its parts do not count.
pub(crate) fn same_dn(dn: &str) -> String {
    let part = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        format!("{}={}", name.trim().to_lowercase(), unescape(value).unwrap_or_else(|| value.to_owned()).to_lowercase())
    };
    split(dn, |c| matches!(c, ',' | ';')).into_iter().map(part).collect::<Vec<_>>().join("\u{0}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ldap3::dn_escape;

    const HOSTILE: [&str; 9] =
        ["*", "a)(uid=*", "\\", "a\u{0}b", "(|(cn=*))", "x,ou=other", " a ", "#hash", "ü + \"quoted\" <a>; =b"];

    #[test]
    fn no_value_becomes_part_of_a_filter() {
        assert_eq!(equals("cn", "a)(uid=*"), "(cn=a\\29\\28uid=\\2a)");
        for value in HOSTILE {
            let filter = equals("cn", value);
            let inner = filter.strip_prefix("(cn=").and_then(|f| f.strip_suffix(')')).unwrap();
            assert!(!inner.contains(['(', ')', '*', '\0']), "{filter}");
            let unescaped = ldap3::ldap_unescape(inner).unwrap();
            assert_eq!(unescaped, value);
            assert!(ldap3::parse_filter(&filter).is_ok(), "{filter}");
            assert!(ldap3::parse_filter(in_chain("member", value)).is_ok());
        }
        assert_eq!(all(["(a=b)", "", "(c=*)"]), "(&(a=b)(c=*))");
    }

    #[test]
    fn names_are_read_as_they_are_escaped() {
        for value in HOSTILE {
            let dn = format!("cn={},ou=people,dc=example", dn_escape(value));
            assert_eq!(rdn(&dn, "CN").as_deref(), Some(value), "{dn}");
            assert_eq!(rdn(&dn, "ou"), None, "{dn}");
        }
        assert_eq!(rdn("uid=a+cn=b\\2Cc,ou=x", "cn").as_deref(), Some("b,c"));
        assert_eq!(rdn("cn=a\\ ,ou=x", "cn").as_deref(), Some("a "));
        assert_eq!(rdn("cn=a  ,ou=x", "cn").as_deref(), Some("a"));
        assert_eq!(rdn("", "cn"), None);
        assert_eq!(same_dn("CN=Ada Lovelace , OU=People,dc=x"), same_dn("cn=ada lovelace,ou=people,DC=x"));
        assert_ne!(same_dn("cn=a\\,ou=b"), same_dn("cn=a,ou=b"));
    }

    #[test]
    fn what_is_no_attribute_is_told_apart() {
        assert!(["cn", "userCertificate;binary", "1.2.840.113556.1.4.221"].into_iter().all(is_attribute));
        assert!(["", "cn)(a", "cn=*", "a b", "*"].into_iter().all(|a| !is_attribute(a)));
    }
}
