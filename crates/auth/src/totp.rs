//! Time-based one-time passcodes (RFC 6238): six digits by HMAC-SHA1, a new one every 30 seconds.
//!
//! Pure: what was used before is remembered by whoever asks, since a passcode is good once only.
use base::Timestamp;
use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use subtle::ConstantTimeEq as _;

/// Seconds that a passcode is shown for.
const PERIOD: i64 = 30;
const DIGITS: u32 = 1_000_000;

/// Reads a seed as authenticators do: base32 of RFC 4648, with or without padding.
pub fn seed(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for c in text.trim_end_matches('=').chars() {
        let value = match c {
            'A'..='Z' => c as u32 - 'A' as u32,
            'a'..='z' => c as u32 - 'a' as u32,
            '2'..='7' => c as u32 - '2' as u32 + 26,
            _ => return None,
        };
        bits = bits << 5 | value;
        held += 5;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    (!out.is_empty()).then_some(out)
}

/// The number of the period that an instant is in.
pub fn step(at: Timestamp) -> i64 {
    at.unix().div_euclid(PERIOD)
}

/// The passcode of a period.
pub fn passcode(seed: &[u8], step: i64) -> String {
    let mut mac = <Hmac<Sha1> as hmac::Mac>::new_from_slice(seed).expect("HMAC takes keys of every length");
    mac.update(&step.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let offset = usize::from(digest[19] & 15);
    let word = digest[offset..offset + 4].iter().fold(0u32, |word, b| word << 8 | u32::from(*b)) & 0x7fff_ffff;
    format!("{:06}", word % DIGITS)
}

/// The period whose passcode was given: the current one, or one of so many before it. All are compared, in constant time.
pub fn find(seed: &[u8], given: &str, now: Timestamp, windows_before: u32) -> Option<i64> {
    let newest = step(now);
    let all = (0..=i64::from(windows_before)).map(|back| newest - back);
    all.fold(None, |found, step| {
        let fits: bool = passcode(seed, step).as_bytes().ct_eq(given.as_bytes()).into();
        if fits && found.is_none() { Some(step) } else { found }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passcodes_are_those_of_the_specification() {
        // RFC 6238, appendix B, SHA1; the last six of its eight digits.
        let seed = b"12345678901234567890";
        for (at, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(passcode(seed, step(Timestamp::from_unix(at))), code, "at {at}");
        }
    }

    #[test]
    fn seeds_are_base32() {
        assert_eq!(seed("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").as_deref(), Some(&b"12345678901234567890"[..]));
        assert_eq!(seed("gezdgnbvgy======").as_deref(), Some(&b"123456"[..]));
        for bad in ["", "A", "GEZ1", "not base32!", "===="] {
            assert_eq!(seed(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_older_period_counts_as_far_as_it_is_allowed() {
        let (seed, now) = (b"12345678901234567890", Timestamp::from_unix(1_111_111_111));
        let before = passcode(seed, step(now) - 1);
        assert_eq!(find(seed, &before, now, 0), None);
        assert_eq!(find(seed, &before, now, 1), Some(step(now) - 1));
        assert_eq!(find(seed, &passcode(seed, step(now) + 1), now, 1), None, "the future does not count");
        assert_eq!(find(seed, "", now, 1), None);
    }
}
