//! Passwords: argon2id at OWASP's minimum, and a cache that makes the logins of returning users cheap.
//!
//! - Hashing runs on blocking threads, as many at once as there are cores; beyond a bounded queue it is refused.
//! - Its memory (19 MiB each) is used again and not left to the allocator, which keeps one per thread that ever hashed.
//! - A user that does not exist costs the same time as a wrong password.
//! - [`CredentialCache`] remembers only successes, only as a keyed MAC with a key that never leaves this process. The
//!   stored hash is part of what is MACed, so a changed password misses at once, in every process, with no message.
//!
//! Lockout and password rules belong to the identity service.
use crate::Error;
use argon2::{
    Algorithm, Argon2, Block, Params, PasswordHash, Version,
    password_hash::{Output, ParamsString, SaltString},
};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::{
    collections::{HashMap, VecDeque},
    fmt, hint,
    num::NonZero,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Longer passwords are refused: OpenStack's own limit, and a bound on the work a request can ask for.
pub const MAX_PASSWORD_BYTES: usize = 4096;

/// How many may wait for a core before the next is told to come back.
const MOST_WAITING: usize = 1024;

/// Work areas that are kept for the next hash.
const MOST_KEPT: usize = 2;

/// What a hash costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl Cost {
    /// OWASP's minimum for argon2id.
    pub const OWASP: Self = Self { memory_kib: 19_456, passes: 2, lanes: 1 };

    fn argon2(self) -> Result<Argon2<'static>, Error> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, None);
        let params = params.map_err(hashing)?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

/// Hashes and verifies passwords, at most one per core at a time.
pub struct Passwords {
    hasher: Arc<Hasher>,
    cores: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    cache: CredentialCache,
}

impl Passwords {
    /// `cost` of new hashes; the cache keeps `remembered` logins for `ttl` each.
    pub fn new(cost: Cost, remembered: usize, ttl: Duration) -> Result<Self, Error> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self::with_workers(cost, cores, MOST_WAITING, CredentialCache::new(remembered, ttl))
    }
    /// As [`Self::new`], with a number of workers and of those who may wait for them.
    pub fn with_workers(cost: Cost, workers: usize, waiting: usize, cache: CredentialCache) -> Result<Self, Error> {
        let workers = workers.max(1);
        let (cores, queue) = (Semaphore::new(workers), Semaphore::new(workers + waiting));
        let hasher = Hasher { argon2: cost.argon2()?, areas: Mutex::default() };
        Ok(Self { hasher: Arc::new(hasher), cores: Arc::new(cores), queue: Arc::new(queue), cache })
    }
    pub fn cache(&self) -> &CredentialCache {
        &self.cache
    }

    /// A PHC string with a random salt, to be stored.
    pub async fn hash(&self, password: &str) -> Result<String, Error> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(Error::PasswordTooLong { most: MAX_PASSWORD_BYTES });
        }
        let password = Zeroizing::new(password.to_owned());
        let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(hashing)?;
        self.run(move |hasher| hasher.hash(&password, &salt)).await
    }

    /// Is `password` the one of `stored`? `None` (no such user, or none set) takes the same time and is false.
    ///
    /// `Err` is our fault or load, never a wrong password.
    pub async fn verify(&self, user_id: &str, password: &str, stored: Option<&str>) -> Result<bool, Error> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Ok(false);
        }
        let Some(stored) = stored else {
            self.verify_nobody(password).await?;
            return Ok(false);
        };
        let tag = self.cache.tag(user_id, password, stored);
        if self.cache.holds(&tag, Instant::now()) {
            return Ok(true);
        }
        let (password, stored) = (Zeroizing::new(password.to_owned()), stored.to_owned());
        let right = self.run(move |hasher| hasher.verify(&password, &stored)).await?;
        if right {
            self.cache.remember(tag, Instant::now());
        }
        Ok(right)
    }

    /// Does the hash have today's cost? If not, hash the password again when the user next logs in.
    pub fn is_current(&self, stored: &str) -> bool {
        PasswordHash::new(stored).is_ok_and(|h| {
            h.algorithm == Algorithm::Argon2id.ident()
                && Params::try_from(&h).is_ok_and(|p| {
                    let now = self.hasher.argon2.params();
                    (p.m_cost(), p.t_cost(), p.p_cost()) == (now.m_cost(), now.t_cost(), now.p_cost())
                })
        })
    }

    async fn verify_nobody(&self, password: &str) -> Result<(), Error> {
        let password = Zeroizing::new(password.to_owned());
        self.run(move |hasher| {
            let out = hasher.derive(&hasher.argon2, &password, b"a salt for nobody", Params::DEFAULT_OUTPUT_LEN)?;
            hint::black_box(&out);
            Ok(())
        })
        .await
    }

    /// The permits travel with the work: a caller that leaves does not free a core that is still busy.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Hasher) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let place = self.queue.clone().try_acquire_owned().map_err(|_| Error::PasswordsBusy)?;
        let core = self.cores.clone().acquire_owned().await.map_err(hashing)?;
        let hasher = self.hasher.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _held = (place, core);
            work(&hasher)
        });
        task.await.map_err(hashing)?
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("params", self.hasher.argon2.params()).finish_non_exhaustive()
    }
}

/// argon2's errors implement `std::error::Error` only with a feature that nothing else here needs.
fn hashing(e: impl fmt::Display) -> Error {
    Error::Hashing(e.to_string().into())
}

/// The work itself, on a thread that may block.
struct Hasher {
    argon2: Argon2<'static>,
    areas: Mutex<Vec<Vec<Block>>>,
}

impl Hasher {
    fn hash(&self, password: &str, salt: &SaltString) -> Result<String, Error> {
        let mut raw = [0u8; 64];
        let raw = salt.decode_b64(&mut raw).map_err(hashing)?;
        let out = self.derive(&self.argon2, password, raw, Params::DEFAULT_OUTPUT_LEN)?;
        let stored = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(self.argon2.params()).map_err(hashing)?,
            salt: Some(salt.as_salt()),
            hash: Some(out),
        };
        Ok(stored.to_string())
    }

    /// The cost comes from the stored hash, so hashes of every cost verify.
    fn verify(&self, password: &str, stored: &str) -> Result<bool, Error> {
        let unreadable = |_| Error::StoredHash;
        let stored = PasswordHash::new(stored).map_err(unreadable)?;
        let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else { return Err(Error::StoredHash) };
        let algorithm = Algorithm::try_from(stored.algorithm).map_err(unreadable)?;
        let version = stored.version.map_or(Ok(Version::V0x13), |v| Version::try_from(v).map_err(|_| Error::StoredHash))?;
        let params = Params::try_from(&stored).map_err(unreadable)?;
        let mut raw = [0u8; 64];
        let raw = salt.decode_b64(&mut raw).map_err(unreadable)?;
        let out = self.derive(&Argon2::new(algorithm, version, params), password, raw, expected.len())?;
        // `Output` compares in constant time.
        Ok(out == expected)
    }

    fn derive(&self, argon2: &Argon2<'_>, password: &str, salt: &[u8], length: usize) -> Result<Output, Error> {
        let mut area = self.areas().pop().unwrap_or_default();
        area.resize(argon2.params().block_count(), Block::default());
        let out = Output::init_with(length, |out| {
            argon2.hash_password_into_with_memory(password.as_bytes(), salt, out, area.as_mut_slice()).map_err(Into::into)
        });
        let mut areas = self.areas();
        if areas.len() < MOST_KEPT && area.len() == self.argon2.params().block_count() {
            areas.push(area);
        }
        out.map_err(hashing)
    }

    fn areas(&self) -> MutexGuard<'_, Vec<Vec<Block>>> {
        self.areas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a verified login is remembered by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CredentialTag([u8; 32]);

/// Logins that were verified a short while ago. Memory only; it may forget at any time.
pub struct CredentialCache {
    key: Hmac<Sha256>,
    ttl: Duration,
    most: usize,
    seen: Mutex<Seen>,
}

/// Every entry is in both; the queue is in order of time, because a login that is remembered is not renewed.
#[derive(Default)]
struct Seen {
    since: HashMap<CredentialTag, Instant>,
    order: VecDeque<CredentialTag>,
}

impl CredentialCache {
    /// Keeps at most `most` logins, each for `ttl` after its password was really verified.
    pub fn new(most: usize, ttl: Duration) -> Self {
        let key = Zeroizing::new(rand::random::<[u8; 32]>());
        let key = <Hmac<Sha256> as hmac::Mac>::new_from_slice(key.as_slice()).expect("HMAC takes keys of every length");
        Self { key, ttl, most, seen: Mutex::default() }
    }
    /// The MAC of user, password and stored hash; the lengths keep the three apart.
    pub fn tag(&self, user_id: &str, password: &str, stored: &str) -> CredentialTag {
        let mut mac = self.key.clone();
        for part in [user_id, password, stored] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        CredentialTag(mac.finalize().into_bytes().into())
    }
    pub fn holds(&self, tag: &CredentialTag, now: Instant) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.since.get(tag).is_some_and(|since| self.is_fresh(*since, now))
    }
    pub fn remember(&self, tag: CredentialTag, now: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = &mut *seen;
        while let Some(oldest) = seen.order.front()
            && seen.since.get(oldest).is_none_or(|since| !self.is_fresh(*since, now))
        {
            seen.pop();
        }
        if self.most == 0 || seen.since.contains_key(&tag) {
            return;
        }
        while seen.order.len() >= self.most {
            seen.pop();
        }
        seen.since.insert(tag, now);
        seen.order.push_back(tag);
    }
    pub fn clear(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen::default();
    }
    pub fn len(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).order.len()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_fresh(&self, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) < self.ttl
    }
}

impl Seen {
    fn pop(&mut self) {
        if let Some(oldest) = self.order.pop_front() {
            self.since.remove(&oldest);
        }
    }
}

impl fmt::Debug for CredentialCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialCache").field("ttl", &self.ttl).field("most", &self.most).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
