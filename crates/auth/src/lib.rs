//! Who calls, and what may they do: tokens, passwords, scopes, policy rules and secrets at rest.
//!
//! Everything here is pure or takes bytes and closures; the only I/O is the directory of key files ([`keys`]).
//! Nothing here reads the store: a service turns rows into a [`Caller`] and asks a [`PolicyBook`].
//!
//! ```text
//! password --Passwords::verify--> user --rows--> Token --mint--> text --open--> Token --rows--> Caller --PolicyBook--> yes/no
//! ```
pub mod error;
pub mod fernet;
pub mod identity;
pub mod keys;
pub mod password;
pub mod policy;
pub mod scope;
pub mod secret;
pub mod token;
pub mod totp;

pub use error::{Error, TokenError};
pub use fernet::{Key, KeyRing};
pub use identity::{AccessRule, AppCredential, Caller, Role, Roles, ServiceCaller, User};
pub use keys::{KeyRepository, LiveKeys};
pub use password::{CredentialCache, MAX_PASSWORD_BYTES, Passwords};
pub use policy::{PolicyBook, Subject, Target, expand};
pub use scope::{DomainId, DomainRef, ProjectId, ProjectRef, RoleId, Scope, UserId};
pub use secret::SecretBox;
pub use token::{AuditId, Federation, Method, Methods, Receipt, Token, TokenScope};
