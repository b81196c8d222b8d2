//! What can go wrong. [`TokenError`] is about a text that a client sent (its answer is 401);
//! [`Error`] is about what the operator owns: keys, rules, stored hashes.
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Fernet key is not 32 bytes in URL-safe base64; replace it with a generated one")]
    KeyText,
    #[error("Key ring is empty; give it at least one key")]
    EmptyRing,
    #[error("Key repository {} holds no keys; create them with `KeyRepository::ensure` or copy them from another controller", dir.display())]
    NoKeys { dir: PathBuf },
    #[error("Key file {} is not a Fernet key; restore it from another controller or remove it", path.display())]
    KeyFile { path: PathBuf },
    #[error("Key file {} can be read by every user; run `chmod 600` on it", path.display())]
    KeyFileOpen { path: PathBuf },
    #[error("Could not {action} {}; check that the directory exists and that this user owns it", path.display())]
    KeyIo { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("Key repository {} is being changed by another process; try again in a moment", dir.display())]
    KeysBusy { dir: PathBuf },
    #[error("Key repository {} kept changing while it was read; try again in a moment", dir.display())]
    KeysUnsettled { dir: PathBuf },

    #[error("Password is longer than {most} bytes; choose a shorter one")]
    PasswordTooLong { most: usize },
    #[error("Too many passwords are being checked; try again in a moment")]
    PasswordsBusy,
    #[error("Stored password hash is not readable; set the user's password again")]
    StoredHash,
    #[error("Password could not be hashed; see the cause and try again")]
    Hashing(#[source] Box<dyn std::error::Error + Send + Sync>),

    #[error("Setting security_compliance.{option} {problem}")]
    Compliance { option: &'static str, problem: String },

    #[error("Policy rule \"{rule}\" has an error at character {at}: {problem}")]
    RuleSyntax { rule: String, at: usize, problem: String },
    #[error("Policy rule \"{name}\" is wrong; correct its text")]
    RuleOf { name: String, source: Box<Error> },
    #[error("Policy rule \"{name}\" refers to \"rule:{missing}\", which does not exist; define it or correct the name")]
    RuleMissing { name: String, missing: String },
    #[error("Policy rule \"{name}\" refers to itself through {path}; break the circle")]
    RuleCircle { name: String, path: String },
    #[error("Policy rule \"{name}\" is defined twice with different texts; keep one")]
    RuleTwice { name: String },
    #[error("Policy file, line {line}: {problem}")]
    PolicyFile { line: usize, problem: String },

    #[error("Secret does not open with the keys at hand, or belongs to another row; restore the keys it was sealed with")]
    Secret,
}

impl Error {
    /// The policy rule that it is about, if it is about one.
    pub fn rule(&self) -> Option<&str> {
        if let Self::RuleOf { name, .. }
        | Self::RuleMissing { name, .. }
        | Self::RuleCircle { name, .. }
        | Self::RuleTwice { name } = self
        {
            return Some(name);
        }
        None
    }
}

/// Why a token text was refused. Clients get one answer for all of them; the difference is for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("Token is not a Fernet token; authenticate again")]
    Malformed,
    #[error("Token was not made with any key of this cloud; authenticate again")]
    UnknownKey,
    #[error("Token has payload version {0}, which this release does not read; authenticate again")]
    Version(u8),
    #[error("Token payload is damaged; authenticate again")]
    Payload,
}
