//! The payload of a token: who, in which scope, until when. Nothing of it is stored, so every API process that shares
//! the keys can read every token.
//!
//! The form is our own: a version byte, a set of flags, then the fields in a fixed order. Ids that are UUIDs (with or
//! without dashes) or SHA-256 digests are packed, which keeps usual tokens below 255 characters, the limit of clients
//! that hold tokens in fixed columns. A payload has one form only: what [`open`] accepts, [`mint`] would write again.
//!
//! ```text
//! version ‖ flags (2) ‖ methods (2) ‖ issued (8, µs) ‖ expires - issued (varint, µs) ‖ audit id (16) ‖ user
//!   ‖ [project or domain] ‖ [parent audit id (16)] ‖ [trust] ‖ [application credential] ‖ [access token] ‖ [federation]
//! id     = 0 ‖ 16 bytes as 32 hex digits | 1 ‖ 16 bytes as a UUID with dashes | 2 ‖ 32 bytes as 64 hex digits
//!        | 3 ‖ length (varint) ‖ UTF-8
//! ```
use crate::{
    KeyRing, TokenError,
    fernet::BASE64URL,
    scope::{DomainId, ProjectId, UserId},
};
use base::Timestamp;
use base64::Engine as _;
use std::{fmt, time::Duration};

mod receipt;
mod wire;
pub use receipt::Receipt;
use wire::{Reader, Writer};

const VERSION: u8 = 1;
/// Longer texts are refused before they are decoded; federated tokens with many groups stay far below.
const LONGEST_TEXT: usize = 16 * 1024;

mod flag {
    pub(super) const SCOPE: u16 = 0b11;
    pub(super) const PROJECT: u16 = 1;
    pub(super) const DOMAIN: u16 = 2;
    pub(super) const SYSTEM: u16 = 3;
    pub(super) const PARENT: u16 = 1 << 2;
    pub(super) const TRUST: u16 = 1 << 3;
    pub(super) const APP_CREDENTIAL: u16 = 1 << 4;
    pub(super) const ACCESS_TOKEN: u16 = 1 << 5;
    pub(super) const FEDERATION: u16 = 1 << 6;
    pub(super) const ALL: u16 = (1 << 7) - 1;
}

/// How the user proved who they are; the order is that of the bits in a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Password,
    Token,
    ApplicationCredential,
    Totp,
    External,
    Mapped,
    OpenId,
    Saml2,
    OAuth1,
    Kerberos,
    X509,
}

impl Method {
    pub const ALL: [Self; 11] = [
        Self::Password,
        Self::Token,
        Self::ApplicationCredential,
        Self::Totp,
        Self::External,
        Self::Mapped,
        Self::OpenId,
        Self::Saml2,
        Self::OAuth1,
        Self::Kerberos,
        Self::X509,
    ];
    /// The name in the Identity API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Token => "token",
            Self::ApplicationCredential => "application_credential",
            Self::Totp => "totp",
            Self::External => "external",
            Self::Mapped => "mapped",
            Self::OpenId => "openid",
            Self::Saml2 => "saml2",
            Self::OAuth1 => "oauth1",
            Self::Kerberos => "kerberos",
            Self::X509 => "x509",
        }
    }
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }
    fn bit(self) -> u16 {
        1 << (self as u16)
    }
}

/// A set of methods; a token got by a token keeps those of its parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Methods(u16);

impl Methods {
    const MASK: u16 = (1 << Method::ALL.len()) - 1;

    #[must_use]
    pub fn with(self, method: Method) -> Self {
        Self(self.0 | method.bit())
    }
    pub fn has(self, method: Method) -> bool {
        self.0 & method.bit() != 0
    }
    pub fn iter(self) -> impl Iterator<Item = Method> {
        Method::ALL.into_iter().filter(move |m| self.has(*m))
    }
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(Method::name).collect()
    }
}

impl FromIterator<Method> for Methods {
    fn from_iter<I: IntoIterator<Item = Method>>(methods: I) -> Self {
        methods.into_iter().fold(Self::default(), Self::with)
    }
}

/// 16 random bytes that name a token in logs and revocations, where its text must not appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuditId(pub [u8; 16]);

impl AuditId {
    pub fn random() -> Self {
        Self(rand::random())
    }
    pub fn parse(text: &str) -> Option<Self> {
        BASE64URL.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL.encode(self.0))
    }
}

/// What the token is good for, by id only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TokenScope {
    #[default]
    Unscoped,
    Project(ProjectId),
    Domain(DomainId),
    System,
}

/// Where a federated user came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Federation {
    pub idp_id: String,
    pub protocol_id: String,
    pub group_ids: Vec<String>,
}

/// All that a token text carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub user_id: UserId,
    pub methods: Methods,
    pub scope: TokenScope,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    pub audit_id: AuditId,
    /// The audit id of the first token of the chain, for a token that was got by a token.
    pub parent_audit_id: Option<AuditId>,
    pub trust_id: Option<String>,
    pub app_credential_id: Option<String>,
    pub access_token_id: Option<String>,
    pub federation: Option<Federation>,
}

impl Token {
    /// An unscoped token with a new audit id; set what else it carries on the value.
    pub fn new(user_id: impl Into<UserId>, methods: Methods, issued_at: Timestamp, lifetime: Duration) -> Self {
        Self {
            user_id: user_id.into(),
            methods,
            scope: TokenScope::Unscoped,
            issued_at,
            expires_at: issued_at.plus(lifetime),
            audit_id: AuditId::random(),
            parent_audit_id: None,
            trust_id: None,
            app_credential_id: None,
            access_token_id: None,
            federation: None,
        }
    }
    /// Is it no longer valid at `now`?
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }
    /// The `audit_ids` of the Identity API: its own, then the chain's.
    pub fn audit_ids(&self) -> Vec<String> {
        std::iter::once(self.audit_id).chain(self.parent_audit_id).map(|a| a.to_string()).collect()
    }
    /// What a token that is got by this one carries as its parent.
    pub fn chain_audit_id(&self) -> AuditId {
        self.parent_audit_id.unwrap_or(self.audit_id)
    }

    fn pack(&self) -> Vec<u8> {
        let set = |on: bool, bit: u16| if on { bit } else { 0 };
        let (scope, scope_id) = match &self.scope {
            TokenScope::Unscoped => (0, None),
            TokenScope::Project(id) => (flag::PROJECT, Some(id.as_str())),
            TokenScope::Domain(id) => (flag::DOMAIN, Some(id.as_str())),
            TokenScope::System => (flag::SYSTEM, None),
        };
        let flags = scope
            | set(self.parent_audit_id.is_some(), flag::PARENT)
            | set(self.trust_id.is_some(), flag::TRUST)
            | set(self.app_credential_id.is_some(), flag::APP_CREDENTIAL)
            | set(self.access_token_id.is_some(), flag::ACCESS_TOKEN)
            | set(self.federation.is_some(), flag::FEDERATION);

        let mut w = Writer::with_capacity(112);
        w.bytes(&[VERSION]);
        w.bytes(&flags.to_be_bytes());
        w.bytes(&self.methods.0.to_be_bytes());
        w.bytes(&self.issued_at.0.to_be_bytes());
        w.varint(self.expires_at.0.wrapping_sub(self.issued_at.0).cast_unsigned());
        w.bytes(&self.audit_id.0);
        w.id(self.user_id.as_str());
        scope_id.into_iter().for_each(|id| w.id(id));
        if let Some(parent) = &self.parent_audit_id {
            w.bytes(&parent.0);
        }
        for id in [&self.trust_id, &self.app_credential_id, &self.access_token_id].into_iter().flatten() {
            w.id(id);
        }
        if let Some(f) = &self.federation {
            w.id(&f.idp_id);
            w.id(&f.protocol_id);
            w.varint(f.group_ids.len() as u64);
            f.group_ids.iter().for_each(|id| w.id(id));
        }
        w.into_bytes()
    }

    fn unpack(bytes: &[u8]) -> Result<Self, TokenError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Self::read(&mut Reader::new(rest)).ok_or(TokenError::Payload),
            Some((&other, _)) => Err(TokenError::Version(other)),
            None => Err(TokenError::Payload),
        }
    }

    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let flags = u16::from_be_bytes(r.array()?);
        let methods = u16::from_be_bytes(r.array()?);
        if flags & !flag::ALL != 0 || methods & !Methods::MASK != 0 {
            return None;
        }
        let has = |bit: u16| flags & bit != 0;
        let issued = i64::from_be_bytes(r.array()?);
        let expires = issued.wrapping_add(r.varint()?.cast_signed());
        let audit_id = AuditId(r.array()?);
        let user_id = UserId(r.id()?);
        let scope = match flags & flag::SCOPE {
            flag::PROJECT => TokenScope::Project(ProjectId(r.id()?)),
            flag::DOMAIN => TokenScope::Domain(DomainId(r.id()?)),
            flag::SYSTEM => TokenScope::System,
            _ => TokenScope::Unscoped,
        };
        let parent_audit_id = if has(flag::PARENT) { Some(AuditId(r.array()?)) } else { None };
        let mut id_if = |bit| if has(bit) { r.id().map(Some) } else { Some(None) };
        let trust_id = id_if(flag::TRUST)?;
        let app_credential_id = id_if(flag::APP_CREDENTIAL)?;
        let access_token_id = id_if(flag::ACCESS_TOKEN)?;
        let federation = if has(flag::FEDERATION) {
            let (idp_id, protocol_id, groups) = (r.id()?, r.id()?, r.varint()?);
            let group_ids = (0..groups).map(|_| r.id()).collect::<Option<_>>()?;
            Some(Federation { idp_id, protocol_id, group_ids })
        } else {
            None
        };
        r.is_empty().then_some(Self {
            user_id,
            methods: Methods(methods),
            scope,
            issued_at: Timestamp(issued),
            expires_at: Timestamp(expires),
            audit_id,
            parent_audit_id,
            trust_id,
            app_credential_id,
            access_token_id,
            federation,
        })
    }
}

/// The text that a client carries in `X-Auth-Token`.
pub fn mint(ring: &KeyRing, token: &Token) -> String {
    ring.encrypt(&token.pack(), token.issued_at)
}

/// Reads a token text. Expiry and revocation are for the caller to judge.
pub fn open(ring: &KeyRing, text: &str) -> Result<Token, TokenError> {
    if text.len() > LONGEST_TEXT {
        return Err(TokenError::Malformed);
    }
    Token::unpack(&ring.decrypt(text)?.message)
}

#[cfg(test)]
mod tests;
