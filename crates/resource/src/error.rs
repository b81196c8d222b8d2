//! The one error of everything that answers users. Dialects turn it into HTTP, in one place.
use std::{borrow::Cow, fmt};

/// What went wrong, in terms that every dialect has a status for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    Conflict,
    Gone,
    TooLarge,
    /// Understood, and not to be done as it is (an idempotency key that stands for another request).
    Unprocessable,
    UnsupportedMedia,
    RangeNotSatisfiable,
    OverQuota,
    NotImplemented,
    /// Cannot be served right now; the same request may work later.
    Unavailable,
    /// A broken promise of ours.
    Internal,
}

/// `message` is for the user; `context` is for the operator and never leaves the log.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
    pub context: Option<String>,
    /// Neutron's `type` (`PortInUse`, `IpAddressGenerationFailure`, …) or Placement's `code`; clients branch on it.
    pub code: Option<Cow<'static, str>>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),+ $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Self { Self::new(ErrorKind::$kind, message) }
    )+};
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), context: None, code: None }
    }
    constructors! {
        bad_request => BadRequest,
        unauthorized => Unauthorized,
        forbidden => Forbidden,
        not_found => NotFound,
        conflict => Conflict,
        gone => Gone,
        too_large => TooLarge,
        unprocessable => Unprocessable,
        over_quota => OverQuota,
        not_implemented => NotImplemented,
        unavailable => Unavailable,
        not_acceptable => NotAcceptable,
        unsupported_media => UnsupportedMedia,
        range_not_satisfiable => RangeNotSatisfiable,
        method_not_allowed => MethodNotAllowed,
    }
    /// A broken promise of ours: the user sees a plain sentence, the log sees `context`.
    pub fn internal(context: impl Into<String>) -> Self {
        let text = "An unexpected error prevented the server from fulfilling your request.";
        Self { context: Some(context.into()), ..Self::new(ErrorKind::Internal, text) }
    }
    /// `Invalid input for NAME. Reason: …`
    pub fn invalid(field: &str, reason: impl fmt::Display) -> Self {
        Self::bad_request(format!("Invalid input for {field}. Reason: {reason}."))
    }
    #[must_use]
    pub fn code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for Error {}

impl From<store::StoreError> for Error {
    fn from(e: store::StoreError) -> Self {
        match &e {
            store::StoreError::Unavailable(_) | store::StoreError::LeaseOver(_) => {
                Self::unavailable("The service cannot be reached right now; try again.").context(e.to_string())
            }
            store::StoreError::Late => {
                Self::unavailable("The request's time was over before anything was changed; try again, with more time.")
            }
            store::StoreError::Full(_) => {
                Self::unavailable("The store is full; an operator must free space.").context(e.to_string())
            }
            store::StoreError::Damaged(_) => Self::internal(e.to_string()),
        }
    }
}

impl From<store::TransactError<Error>> for Error {
    fn from(e: store::TransactError<Error>) -> Self {
        match e {
            store::TransactError::Refused(e) => e,
            store::TransactError::Store(e) => e.into(),
        }
    }
}
