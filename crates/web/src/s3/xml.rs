//! The little XML that S3 answers with: flat lists of elements without attributes that matter.

/// The content of every element with this name, at any depth, in order. Elements do not hold others of their own name.
pub(super) fn all<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}"), format!("</{name}>"));
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(&open) {
        let inside = &rest[at + open.len()..];
        rest = inside;
        let Some(end) = inside.find('>') else { break };
        match inside.as_bytes().first() {
            Some(b'>' | b' ') if !inside[..end].ends_with('/') => {}
            // A longer name, or an element without content.
            _ => continue,
        }
        let body = &inside[end + 1..];
        let Some(length) = body.find(&close) else { break };
        found.push(&body[..length]);
        rest = &body[length + close.len()..];
    }
    found
}

/// The text of the first element with this name.
pub(super) fn text(within: &str, name: &str) -> Option<String> {
    all(within, name).first().map(|raw| unescaped(raw))
}

fn unescaped(raw: &str) -> String {
    raw.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_elements() {
        let list = "<?xml version=\"1.0\"?><R xmlns=\"x\"><Upload><Key>a&amp;b</Key><UploadId>1</UploadId></Upload>\
                    <UploadIdMarker/><Upload><Key>c</Key></Upload><IsTruncated>false</IsTruncated></R>";
        let uploads = all(list, "Upload");
        assert_eq!(uploads.len(), 2);
        assert_eq!((text(uploads[0], "Key"), text(uploads[0], "UploadId")), (Some("a&b".into()), Some("1".into())));
        assert_eq!((text(uploads[1], "Key"), text(uploads[1], "UploadId")), (Some("c".into()), None));
        assert_eq!(text(list, "IsTruncated").as_deref(), Some("false"));
        for broken in ["<Key", "<Key>", "<Key>x", "", "<Key/>"] {
            assert_eq!(text(broken, "Key"), None, "{broken}");
        }
    }
}
