//! From the text of a token to a caller, many thousand times a second.
//!
//! What a token stands for is remembered by its hash, together with the revision of the identity tables that it was read at. A
//! change of any of these rows makes all that is remembered be read anew, so a token that was revoked by a committed write is
//! refused by the next request in every process. Only the clock is asked every time.
use crate::{
    LimitModel, SecurityCompliance,
    compliance::Compliance,
    directory::Directories,
    federation::oidc::{FederationConfig, Providers},
    key_ring::StoredKeys,
    recent::Recent,
    resources,
    rows::{self, ACCESS_TOKENS, DOMAIN_CONFIGS, IMPLIED, LINKS, MEMBERSHIPS, REVOCATIONS, TOKEN_KEYS},
    standing::{self, Standing},
    token_body,
};
use api::{Authenticator, Error, Result, Supposed, TokenKeys};
use auth::{
    Caller, KeyRepository, LiveKeys, Methods, Passwords, Receipt, Roles, SecretBox, ServiceCaller, Token, TokenError,
    identity::token_hash, password::Cost, token,
};
use base::Timestamp;
use bytes::Bytes;
use std::{
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use store::{Db, Reader, Revision, Table};

/// What a client hears whenever its token or password is no good.
pub(crate) const NOT_AUTHENTICATED: &str = "The request you have made requires authentication.";
/// Half of the tokens that are remembered; each may hold its answer, some KiB.
const REMEMBERED: usize = 4096;
/// Logins whose passwords need not be hashed again, and for how long.
const LOGINS: (usize, Duration) = (16_384, Duration::from_secs(300));
/// A token of an unknown key makes the key directory be read again, at most this often.
const RELOAD_AFTER: Duration = Duration::from_secs(2);

/// Where keys are and how long tokens live.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// Fernet keys of tokens; every API process shares them.
    pub token_keys: PathBuf,
    /// Keys of secrets at rest; every API process shares them.
    pub secret_keys: PathBuf,
    /// Token keys that a rotation keeps.
    pub most_token_keys: usize,
    pub token_lifetime: Duration,
    /// How long after its end a token may still be shown to services that ask for it.
    pub expired_window: Duration,
    pub password_cost: Cost,
    /// Users for whom others vouch.
    pub federation: FederationConfig,
    /// Rules for passwords and accounts.
    pub security_compliance: SecurityCompliance,
    /// Periods of 30 s before the current one whose passcodes still count.
    pub passcode_windows: u32,
    /// How long what was proved so far counts, while a login with several methods is under way.
    pub receipt_lifetime: Duration,
    /// How unified limits of a tree must fit.
    pub limit_model: LimitModel,
}

impl AuthConfig {
    /// The defaults, with keys in `token-keys` and `secret-keys` below a directory.
    pub fn new(dir: &Path) -> Self {
        Self {
            token_keys: dir.join("token-keys"),
            secret_keys: dir.join("secret-keys"),
            most_token_keys: 5,
            token_lifetime: Duration::from_secs(3600),
            expired_window: Duration::from_secs(48 * 3600),
            password_cost: Cost::OWASP,
            federation: FederationConfig::default(),
            security_compliance: SecurityCompliance::default(),
            passcode_windows: 1,
            receipt_lifetime: Duration::from_secs(300),
            limit_model: LimitModel::default(),
        }
    }
}

/// A token that was understood.
pub(crate) struct Known {
    revision: Revision,
    pub(crate) token: Token,
    pub(crate) standing: Standing,
    pub(crate) caller: Arc<Caller>,
    /// The answer of `GET /v3/auth/tokens`, with the catalog and without.
    bodies: [OnceLock<Bytes>; 2],
}

impl Known {
    /// Is what is known still what the rows say?
    fn holds(&self, revision: Revision, now: Timestamp) -> bool {
        self.revision == revision && self.standing.until.is_none_or(|until| now < until)
    }
}

/// The authenticator of the cloud, and what the identity service's handlers share.
pub struct Auth {
    pub(crate) db: Db,
    pub(crate) config: AuthConfig,
    pub(crate) passwords: Passwords,
    pub(crate) compliance: Arc<Compliance>,
    keys: LiveKeys,
    pub(crate) stored_keys: StoredKeys,
    secrets: Arc<LiveKeys>,
    pub(crate) directories: Arc<Directories>,
    pub(crate) providers: Providers,
    known: Recent<[u8; 32], Arc<Known>>,
    reloaded: Mutex<Instant>,
}

/// Tables whose rows decide what a token stands for and what its answer shows.
static DECIDING: [&Table; 19] = [
    &resources::USER.table,
    &resources::PROJECT.table,
    &resources::ROLE.table,
    &resources::SERVICE.table,
    &resources::ENDPOINT.table,
    &resources::APP_CREDENTIAL.table,
    &resources::TRUST.table,
    &resources::IDENTITY_PROVIDER.table,
    &resources::MAPPING.table,
    &resources::SERVICE_PROVIDER.table,
    &rows::ASSIGNMENTS,
    &IMPLIED,
    &MEMBERSHIPS,
    &REVOCATIONS,
    &LINKS,
    &rows::PROTOCOLS,
    &DOMAIN_CONFIGS,
    &ACCESS_TOKENS,
    &TOKEN_KEYS,
];

impl Auth {
    /// Loads the keys, making the first ones if there are none.
    pub fn open(db: Db, config: AuthConfig) -> Result<Arc<Self>, auth::Error> {
        let secrets = Arc::new(LiveKeys::ensure(KeyRepository::for_secrets(&config.secret_keys))?);
        Ok(Arc::new(Self {
            directories: Directories::new(db.clone(), secrets.clone()),
            providers: Providers::default(),
            db,
            compliance: Arc::new(Compliance::new(config.security_compliance.clone())?),
            passwords: Passwords::new(config.password_cost, LOGINS.0, LOGINS.1)?,
            keys: LiveKeys::ensure(KeyRepository::for_tokens(&config.token_keys, config.most_token_keys))?,
            secrets,
            stored_keys: StoredKeys::default(),
            config,
            known: Recent::new(REMEMBERED),
            reloaded: Mutex::new(Instant::now()),
        }))
    }
    /// The files of token keys, with which a cloud begins.
    pub(crate) fn key_files(&self) -> &LiveKeys {
        &self.keys
    }
    /// The keys of secrets at rest.
    pub fn secret_keys(&self) -> &LiveKeys {
        &self.secrets
    }
    pub(crate) fn secret_box(&self) -> SecretBox {
        SecretBox::new(self.secrets.ring().as_ref().clone())
    }
    pub(crate) fn now(&self) -> Timestamp {
        self.db.now()
    }
    /// The text of a token.
    pub(crate) fn mint(&self, token: &Token) -> String {
        token::mint(&self.ring(&self.db.read()), token)
    }

    /// Seals what a user has proved so far.
    pub(crate) fn receipt(&self, user_id: &str, methods: Methods) -> (String, Receipt) {
        let issued_at = self.now();
        let expires_at = issued_at.plus(self.config.receipt_lifetime);
        let receipt = Receipt { user_id: user_id.into(), methods, issued_at, expires_at };
        (receipt.seal(&self.ring(&self.db.read())), receipt)
    }
    /// A receipt that is still good, of this cloud.
    pub(crate) fn open_receipt(&self, text: &str) -> Result<Receipt, String> {
        let ring = self.ring(&self.db.read());
        let receipt = Receipt::open(&ring, text).map_err(|e| e.to_string())?;
        if self.now() >= receipt.expires_at { Err("the receipt is expired".into()) } else { Ok(receipt) }
    }

    fn open_text(&self, reader: &Reader<'_>, text: &str) -> Result<Token, TokenError> {
        match token::open(&self.ring(reader), text) {
            Err(TokenError::UnknownKey) if self.reload_now() => token::open(&self.ring(reader), text),
            other => other,
        }
    }

    /// Another process may have rotated the keys.
    fn reload_now(&self) -> bool {
        let mut last = self.reloaded.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() < RELOAD_AFTER {
            return false;
        }
        *last = Instant::now();
        self.keys.reload().unwrap_or_else(|e| {
            tracing::warn!(error = %base::chain(&e), "The token keys could not be read again; the old ones stay in use");
            false
        })
    }

    /// What a token stands for by the rows as they are.
    fn read(&self, reader: &Reader<'_>, text: &str, hash: [u8; 32]) -> Result<Arc<Known>, String> {
        let token = self.open_text(reader, text).map_err(|e| e.to_string())?;
        let standing = standing::of(&mut &*reader, &token, self.now()).map_err(|e| e.to_string())?;
        let caller = Arc::new(caller(&token, &standing, hash));
        Ok(Arc::new(Known { revision: reader.modified(&DECIDING), token, standing, caller, bodies: Default::default() }))
    }

    /// What a token that was just made stands for. It is remembered when it is first used: many never are.
    pub(crate) fn first_look(&self, text: &str) -> Result<Arc<Known>, String> {
        self.read(&self.db.read(), text, token_hash(text))
    }

    /// What a token stands for, now or, with `late`, within the window after its end. The reason of a refusal is for operators.
    pub(crate) fn look(&self, text: &str, late: bool) -> Result<Arc<Known>, String> {
        let hash = token_hash(text);
        let now = self.now();
        let reader = self.db.read();
        let known = match self.known.get(&hash).filter(|k| k.holds(reader.modified(&DECIDING), now)) {
            Some(known) => known,
            None => {
                let known = self.read(&reader, text, hash)?;
                self.known.insert(hash, known.clone());
                known
            }
        };
        let end = if late { known.token.expires_at.plus(self.config.expired_window) } else { known.token.expires_at };
        // What it rests on may end on its own, too.
        let rests_on = [&known.standing.app_credential, &known.standing.trust, &known.standing.access_token];
        let over = |row: &Arc<store::Row>| row.field("expires_at").as_i64().is_some_and(|at| now.0 >= at);
        if now >= end || rests_on.into_iter().flatten().any(over) {
            return Err("the token is expired".into());
        }
        self.directories.notice(&known.standing.user_row);
        Ok(known)
    }

    /// The body that shows a token; made once for each token and state of the rows.
    pub(crate) fn body(&self, known: &Known, catalog: bool) -> Bytes {
        let make = || {
            let reader = self.db.read();
            let body = token_body::show(&mut &reader, &known.token, &known.standing, catalog);
            Bytes::from(body.to_string())
        };
        known.bodies[usize::from(catalog)].get_or_init(make).clone()
    }

    fn admit(&self, text: &str, service: Option<&str>) -> Result<Arc<Caller>> {
        let refused = |why: String| Error::unauthorized(NOT_AUTHENTICATED).context(why);
        let Some(service) = service else {
            return Ok(self.look(text, false).map_err(refused)?.caller.clone());
        };
        let service = self.look(service, false).map_err(|e| refused(format!("service token: {e}")))?;
        // A long operation may outlive the user's token, not the service's.
        let user = self.look(text, service.caller.has_role("service")).map_err(refused)?;
        let by = &service.caller;
        let service = ServiceCaller { user: by.user.clone(), project: by.scope.project().cloned(), roles: by.roles.clone() };
        Ok(Arc::new(Caller { service: Some(service), ..Caller::clone(&user.caller) }))
    }
}

impl Authenticator for Auth {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        service: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<Caller>>> + Send + 'a>> {
        Box::pin(std::future::ready(self.admit(token, service)))
    }
    fn suppose(&self, who: &Supposed) -> Result<Arc<Caller>> {
        self.suppose_rows(who)
    }
    fn token_keys(&self) -> Result<TokenKeys> {
        Ok(self.key_facts())
    }
    fn rotate_token_keys<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<TokenKeys>> + Send + 'a>> {
        Box::pin(self.rotate_ring())
    }
    fn secrets(&self) -> Option<SecretBox> {
        Some(self.secret_box())
    }
}

pub(crate) fn caller(token: &Token, standing: &Standing, token_hash: [u8; 32]) -> Caller {
    Caller {
        user: standing.user.clone(),
        scope: standing.scope.clone(),
        roles: Roles::new(standing.roles.clone()),
        methods: token.methods,
        audit_id: token.audit_id,
        parent_audit_id: token.parent_audit_id,
        issued_at: token.issued_at,
        expires_at: token.expires_at,
        token_hash,
        app_credential: standing.app(),
        trust_id: token.trust_id.clone(),
        groups: token.federation.as_ref().map_or_else(Vec::new, |f| f.group_ids.clone()),
        access_token_id: token.access_token_id.clone(),
        is_admin_project: true,
        service: None,
    }
}
