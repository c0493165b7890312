//! TRUST, for people and scripts: who is asking, and may they?
//!
//! Three ways in. A person logs in with name and password and gets a session cookie. A script carries
//! an API token (`peil_…`), or name and password by HTTP Basic for tools that know nothing else
//! (Prometheus). Secrets never rest here: passwords are argon2id hashes, session ids and tokens are
//! kept as SHA-256 (they are 256 random bits, so a fast hash is enough).
//!
//! Guessing is slowed per account and per address ([`throttle`]) and argon2 runs on blocking threads,
//! two at a time ([`HASHES_AT_ONCE`]). A password that has just been verified for HTTP Basic is
//! remembered for [`BASIC_CACHE`] under a key that lives only in this process, so a scrape every
//! 15 s does not cost 20 ms and 19 MiB each; changing the password voids it at once.
//!
//! What it does not do: OIDC, second factors, scopes per service. Persistence is behind
//! [`AccessStore`]; time comes from the [`WallClock`] it is given.

mod keep;
pub mod password;
pub mod throttle;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;
use ring::{digest, hmac};
use serde::{Deserialize, Serialize};

pub use keep::{AccessStore, ApiTokenRow, MemoryAccess, SessionRow, UserRow};
pub use password::{PasswordCost, first_run_password};
use throttle::Throttle;

/// A session that nobody used for this long has ended.
pub const SESSION_IDLE: Millis = Millis(8 * Millis::HOUR.0);

/// A session this old has ended, however busy.
pub const SESSION_AGE: Millis = Millis(24 * Millis::HOUR.0);

/// "Last used" is written at most this often per session: a page view is not a database write.
const SESSION_TOUCH: Millis = Millis::MINUTE;

/// Passwords hashed at the same time (19 MiB and one core each). More wait, at most 5 s;
/// then the answer is "busy, try again".
pub const HASHES_AT_ONCE: usize = 2;

/// See [`HASHES_AT_ONCE`].
const HASH_WAIT: Duration = Duration::from_secs(5);

/// A password verified for HTTP Basic is not hashed again for this long.
pub const BASIC_CACHE: Millis = Millis(5 * Millis::MINUTE.0);

/// Verified passwords remembered at most. When full, all are forgotten and verified anew.
const BASIC_CACHE_ENTRIES: usize = 64;

/// What somebody may do. Everybody who is known reads everything; each change asks for a [`Right`], and a role has
/// those that are written here and no others. Users and tokens are made on the command line only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything, changes nothing.
    Viewer,
    /// Keeps the agreement and proposes exclusions; decides about none.
    Editor,
    /// Proposes and decides: exclusions that others proposed, months.
    Approver,
    /// Everything.
    Admin,
}

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Ask for something others decide about: an exclusion, a draft.
    Propose,
    /// Decide: about an exclusion, to seal a month, to correct one.
    Decide,
    /// Bring contracts, services and checks into force.
    Agree,
}

impl Right {
    /// What it allows, after "may not".
    pub fn words(self) -> &'static str {
        match self {
            Self::Propose => "propose",
            Self::Decide => "decide about exclusions and months",
            Self::Agree => "change what is agreed",
        }
    }
}

impl Role {
    /// The word stored and shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }

    /// Whether it has this right.
    pub fn may(self, right: Right) -> bool {
        match self {
            Self::Viewer => false,
            Self::Editor => matches!(right, Right::Propose | Right::Agree),
            Self::Approver => matches!(right, Right::Propose | Right::Decide),
            Self::Admin => true,
        }
    }

    /// The role with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Viewer, Self::Editor, Self::Approver, Self::Admin].into_iter().find(|role| role.word() == word)
    }
}

/// SHA-256 of a secret: all that is kept of it.
pub type SecretHash = [u8; 32];

/// Somebody whose credential was good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// User name, or the label of an API token.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The session they came with; `None` for tokens and HTTP Basic.
    pub session: Option<SecretHash>,
}

/// A failure of ours while deciding (not a refusal).
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The users and sessions could not be read or written.
    #[error("{attempt}: the store of users and sessions does not answer")]
    Store {
        /// What was tried.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system ({0})")]
    Random(String),
    /// The password could not be hashed.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// Why a name and password were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Name or password is wrong; which one is not told.
    #[error("Name or password is not right.")]
    Wrong,
    /// Too many failures for this name or from this address.
    #[error("Too many failed attempts. Try again in {wait_s} s.")]
    TooMany {
        /// Whole seconds until the next attempt is looked at.
        wait_s: i64,
    },
    /// More people log in at this moment than can be verified.
    #[error("The collector is verifying other passwords. Try again in a few seconds.")]
    Busy,
    /// We failed.
    #[error(transparent)]
    Failed(#[from] AccessError),
}

/// A successful log-in: the value for the cookie. It is shown nowhere else and kept only as a hash.
#[derive(Clone, PartialEq, Eq)]
pub struct NewSession {
    /// The session id: 256 random bits in base64url.
    pub secret: String,
}

impl std::fmt::Debug for NewSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewSession(…)")
    }
}

/// Decides who is asking. Cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    store: AccessStore,
    clock: WallClock,
    cost: PasswordCost,
    throttle: Mutex<Throttle>,
    hashing: tokio::sync::Semaphore,
    basic_key: hmac::Key,
    basic_seen: Mutex<BTreeMap<[u8; 32], Verified>>,
}

/// A password verified for HTTP Basic: until when, and against which stored hash.
struct Verified {
    until: UtcTime,
    stored: String,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Access(…)")
    }
}

impl Access {
    /// Access over this store. `cost` is used for new passwords; old ones carry theirs.
    ///
    /// # Errors
    /// [`AccessError::Random`] without random bytes.
    pub fn new(store: AccessStore, clock: WallClock, cost: PasswordCost) -> Result<Self, AccessError> {
        let key: [u8; 32] = random()?;
        Ok(Self(Arc::new(Inner {
            store,
            clock,
            cost,
            throttle: Mutex::new(Throttle::default()),
            hashing: tokio::sync::Semaphore::new(HASHES_AT_ONCE),
            basic_key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            basic_seen: Mutex::new(BTreeMap::new()),
        })))
    }

    /// Creates the user, or gives them a new password and role. All their sessions end.
    ///
    /// # Errors
    /// When hashing or the store fails.
    pub async fn set_password(&self, name: &str, role: Role, password: &str) -> Result<(), AccessError> {
        let (cost, password) = (self.0.cost, password.to_owned());
        let hash = blocking(move || password::hash(&password, cost)).await??;
        self.0.store.set_password(name, UserRow { hash, role }, self.0.clock.now()).await
    }

    /// Verifies a name and password and opens a session.
    ///
    /// # Errors
    /// The reason for refusing, in words fit for the log-in page.
    pub async fn log_in(&self, name: &str, password: &str, peer: IpAddr) -> Result<NewSession, Refusal> {
        self.verify(name, password, peer).await?;
        let secret = BASE64URL_NOPAD.encode(&random::<32>()?);
        let now = self.0.clock.now();
        let row = SessionRow { user: name.to_owned(), created_at: now, last_used: now };
        self.0.store.create_session(hash_secret(&secret), row).await?;
        Ok(NewSession { secret })
    }

    /// Ends the session of this cookie, if there is one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn log_out(&self, secret: &str) -> Result<(), AccessError> {
        self.0.store.delete_session(hash_secret(secret)).await
    }

    /// Who holds this session cookie; counts as use.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn by_session(&self, secret: &str) -> Result<Option<Principal>, AccessError> {
        let hash = hash_secret(secret);
        let Some((row, principal)) = self.living_session(hash).await? else { return Ok(None) };
        let now = self.0.clock.now();
        if now.since(row.last_used) >= SESSION_TOUCH {
            self.0.store.touch_session(hash, now).await?;
        }
        Ok(Some(principal))
    }

    /// Whether a session still lives, without counting as use: for streams that outlast a request.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn session_lives(&self, hash: SecretHash) -> Result<bool, AccessError> {
        Ok(self.living_session(hash).await?.is_some())
    }

    async fn living_session(&self, hash: SecretHash) -> Result<Option<(SessionRow, Principal)>, AccessError> {
        let Some(row) = self.0.store.find_session(hash).await? else { return Ok(None) };
        let now = self.0.clock.now();
        if now.since(row.last_used) >= SESSION_IDLE || now.since(row.created_at) >= SESSION_AGE {
            self.0.store.delete_session(hash).await?;
            return Ok(None);
        }
        let Some(user) = self.0.store.user(&row.user).await? else { return Ok(None) };
        let principal = Principal { name: row.user.clone(), role: user.role, session: Some(hash) };
        Ok(Some((row, principal)))
    }

    /// Makes an API token, told only now. `None` never expires.
    ///
    /// # Errors
    /// When the store or the random source fails.
    pub async fn issue_api_token(
        &self,
        label: &str,
        role: Role,
        expires_at: Option<UtcTime>,
    ) -> Result<String, AccessError> {
        let token = format!("peil_{}", BASE64URL_NOPAD.encode(&random::<32>()?));
        let row = ApiTokenRow { label: label.to_owned(), role, expires_at };
        self.0.store.add_api_token(hash_secret(&token), row, self.0.clock.now()).await?;
        Ok(token)
    }

    /// Whether there is a user of this name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn has_user(&self, name: &str) -> Result<bool, AccessError> {
        Ok(self.role_of(name).await?.is_some())
    }

    /// The role of the user of this name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn role_of(&self, name: &str) -> Result<Option<Role>, AccessError> {
        Ok(self.0.store.user(name).await?.map(|user| user.role))
    }

    /// Who holds this API token.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn by_api_token(&self, token: &str) -> Result<Option<Principal>, AccessError> {
        if !token.starts_with("peil_") {
            return Ok(None);
        }
        let Some(row) = self.0.store.find_api_token(hash_secret(token)).await? else { return Ok(None) };
        if row.expires_at.is_some_and(|end| end <= self.0.clock.now()) {
            return Ok(None);
        }
        Ok(Some(Principal { name: row.label, role: row.role, session: None }))
    }

    /// Who has this name and password (HTTP Basic), with the short memory described above.
    ///
    /// # Errors
    /// The reason for refusing.
    pub async fn by_password(&self, name: &str, password: &str, peer: IpAddr) -> Result<Principal, Refusal> {
        let key = self.basic_digest(name, password);
        let now = self.0.clock.now();
        if let Some(user) = self.0.store.user(name).await?
            && lock(&self.0.basic_seen).get(&key).is_some_and(|seen| seen.until > now && seen.stored == user.hash)
        {
            return Ok(Principal { name: name.to_owned(), role: user.role, session: None });
        }
        let user = self.verify(name, password, peer).await?;
        let mut seen = lock(&self.0.basic_seen);
        if seen.len() >= BASIC_CACHE_ENTRIES {
            seen.clear();
        }
        seen.insert(key, Verified { until: now.plus(BASIC_CACHE), stored: user.hash });
        Ok(Principal { name: name.to_owned(), role: user.role, session: None })
    }

    /// Throttle, hash, compare, and remember the failure. An unknown name costs the same time.
    async fn verify(&self, name: &str, password: &str, peer: IpAddr) -> Result<UserRow, Refusal> {
        let wait = lock(&self.0.throttle).wait(name, peer, self.0.clock.now());
        if wait > Millis::ZERO {
            return Err(Refusal::TooMany { wait_s: (wait.0 + 999) / 1_000 });
        }
        let permit = tokio::time::timeout(HASH_WAIT, self.0.hashing.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err(Refusal::Busy) };
        // Counted before the work: requests sent at once must not all pass the check above.
        lock(&self.0.throttle).failed(name, peer, self.0.clock.now());
        let user = self.0.store.user(name).await?;
        let (stored, cost) = (user.as_ref().map(|u| u.hash.clone()), self.0.cost);
        let password = password.to_owned();
        let good = blocking(move || password::verify(&password, stored.as_deref(), cost)).await?;
        match user {
            Some(user) if good => {
                lock(&self.0.throttle).succeeded(name, peer);
                Ok(user)
            }
            _ => Err(Refusal::Wrong),
        }
    }

    fn basic_digest(&self, name: &str, password: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0.basic_key);
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        context.update(&name.len().to_le_bytes());
        context.update(name.as_bytes());
        context.update(password.as_bytes());
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }
}

/// SHA-256 of a session id or API token.
pub fn hash_secret(secret: &str) -> SecretHash {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    out
}

fn random<const N: usize>() -> Result<[u8; N], AccessError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| AccessError::Random(e.to_string()))?;
    Ok(bytes)
}

/// Runs `work` on a blocking thread; a panic there is a failure here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AccessError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| AccessError::Hash(e.to_string()))
}

/// Each of these maps is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
