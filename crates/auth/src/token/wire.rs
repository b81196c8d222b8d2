//! Bytes in and out of a token payload. The reader accepts only what the writer would write.

const HEX32: u8 = 0;
const DASHED: u8 = 1;
const HEX64: u8 = 2;
const TEXT: u8 = 3;
const DASHES: [usize; 4] = [8, 13, 18, 23];

pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn with_capacity(n: usize) -> Self {
        Self(Vec::with_capacity(n))
    }
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
    pub(super) fn bytes(&mut self, b: &[u8]) {
        self.0.extend_from_slice(b);
    }
    /// Seven bits a byte, the lowest first.
    pub(super) fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }
    pub(super) fn id(&mut self, id: &str) {
        let (tag, packed) = classify(id);
        self.0.push(tag);
        match packed {
            Some((bytes, len)) => self.bytes(&bytes[..len]),
            None => {
                self.varint(id.len() as u64);
                self.bytes(id.as_bytes());
            }
        }
    }
}

/// The tag of an id and, when it has a packed form, that form.
fn classify(id: &str) -> (u8, Option<([u8; 32], usize)>) {
    let b = id.as_bytes();
    let dashed = b.len() == 36 && DASHES.iter().all(|&i| b[i] == b'-');
    let (tag, len) = match b.len() {
        32 => (HEX32, 16),
        36 if dashed => (DASHED, 16),
        64 => (HEX64, 32),
        _ => return (TEXT, None),
    };
    let mut out = [0; 32];
    let mut digits = b.iter().enumerate().filter(|(i, _)| !(dashed && DASHES.contains(i))).map(|(_, d)| nibble(*d));
    for o in &mut out[..len] {
        match (digits.next().flatten(), digits.next().flatten()) {
            (Some(high), Some(low)) => *o = high << 4 | low,
            _ => return (TEXT, None),
        }
    }
    (tag, Some((out, len)))
}

/// Lower case only: upper case must come back as it went in, so it is kept as text.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let [b] = self.array()?;
            let part = u64::from(b & 0x7f);
            if part << shift >> shift != part {
                return None;
            }
            n |= part << shift;
            if b & 0x80 == 0 {
                return (b != 0 || shift == 0).then_some(n);
            }
        }
        None
    }
    pub(super) fn id(&mut self) -> Option<String> {
        let [tag] = self.array()?;
        match tag {
            HEX32 => Some(hex(self.take(16)?, false)),
            DASHED => Some(hex(self.take(16)?, true)),
            HEX64 => Some(hex(self.take(32)?, false)),
            TEXT => {
                let len = usize::try_from(self.varint()?).ok()?;
                let text = str::from_utf8(self.take(len)?).ok()?;
                (classify(text).0 == TEXT).then(|| text.to_owned())
            }
            _ => None,
        }
    }
}

fn hex(bytes: &[u8], dashed: bool) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2 + 4);
    for b in bytes {
        if dashed && DASHES.contains(&out.len()) {
            out.push('-');
        }
        out.push(char::from(DIGITS[usize::from(b >> 4)]));
        out.push(char::from(DIGITS[usize::from(b & 15)]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(id: &str) -> Vec<u8> {
        let mut w = Writer::with_capacity(0);
        w.id(id);
        w.into_bytes()
    }

    #[test]
    fn usual_ids_are_packed_and_others_kept() {
        for (id, len) in [
            ("00112233445566778899aabbccddeeff", 17),
            ("00112233-4455-6677-8899-aabbccddeeff", 17),
            (&"ab".repeat(32), 33),
            ("00112233445566778899AABBCCDDEEFF", 34),
            ("00112233-4455-6677-8899-aabbccddeef-", 38),
            ("default", 9),
            ("", 2),
        ] {
            let bytes = packed(id);
            assert_eq!(bytes.len(), len, "{id}");
            assert_eq!(Reader::new(&bytes).id().as_deref(), Some(id));
        }
    }

    #[test]
    fn a_second_form_of_the_same_value_is_refused() {
        let mut long = vec![TEXT, 32];
        long.extend_from_slice(b"00112233445566778899aabbccddeeff");
        assert_eq!(Reader::new(&long).id(), None);
        assert_eq!(Reader::new(&[0x80, 0x00]).varint(), None);
        assert_eq!(Reader::new(&[0xff; 10]).varint(), None);
    }

    proptest! {
        #[test]
        fn varints_round_trip(n: u64) {
            let mut w = Writer::with_capacity(0);
            w.varint(n);
            prop_assert_eq!(Reader::new(&w.into_bytes()).varint(), Some(n));
        }
        #[test]
        fn ids_round_trip(id in "\\PC{0,80}|[0-9a-f]{32}|[0-9a-f]{64}|[0-9a-fA-F]{32}|[0-9a-f-]{36}") {
            let bytes = packed(&id);
            let mut r = Reader::new(&bytes);
            prop_assert_eq!(r.id(), Some(id));
            prop_assert!(r.is_empty());
        }
    }
}
