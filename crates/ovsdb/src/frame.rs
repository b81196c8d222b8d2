//! Cuts a byte stream into JSON objects. OVSDB puts no separator between messages, so the end of one is where its
//! outermost brace closes; looking at each byte once keeps large first answers linear.
use serde_json::Value;

/// A message larger than this is a broken or hostile peer.
const MOST: usize = 512 << 20;

#[derive(Debug, Default)]
pub(crate) struct Framer {
    bytes: Vec<u8>,
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Framer {
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.bytes.len() + bytes.len() > MOST {
            return Err(format!("a message longer than {MOST} bytes"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
    /// The next whole message, if it is there.
    pub(crate) fn next(&mut self) -> Result<Option<Value>, String> {
        while let Some(&byte) = self.bytes.get(self.seen) {
            self.seen += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth == 1 => {
                    let message = serde_json::from_slice(&self.bytes[..self.seen]).map_err(|e| e.to_string());
                    self.bytes.drain(..self.seen);
                    (self.seen, self.depth) = (0, 0);
                    return message.map(Some);
                }
                b'}' | b']' if self.depth > 0 => self.depth -= 1,
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if self.depth == 0 => return Err(format!("byte {byte:#04x} between messages")),
                _ => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn any_cut_gives_the_same_messages() {
        let text = br#"{"a":"}{\"\\"}  {"b":[{"c":"]"}]}{}"#;
        let want = vec![json!({"a": "}{\"\\"}), json!({"b": [{"c": "]"}]}), json!({})];
        for size in 1..text.len() {
            let (mut framer, mut got) = (Framer::default(), Vec::new());
            for part in text.chunks(size) {
                framer.push(part).unwrap();
                while let Some(v) = framer.next().unwrap() {
                    got.push(v);
                }
            }
            assert_eq!(got, want, "cut by {size}");
        }
    }

    #[test]
    fn rubbish_is_an_error() {
        for text in ["x", "}", "{]"] {
            let mut framer = Framer::default();
            framer.push(text.as_bytes()).unwrap();
            assert!(framer.next().is_err(), "{text}");
        }
    }
}
