//! The token that requests carry: gets it, renews it, and replaces it when Vault refuses it.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use keyway_crypto::SecretBytes;
use keyway_domain::ports::Clock;
use keyway_domain::vault::{VaultAuth, is_secret_id, is_token};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::http::{Answer, Call, Http, Limits, body};
use crate::token_file::TokenFolders;

/// The longest token of a login, in bytes.
const LONGEST_OF_LOGIN: usize = 4096;
/// How long until a token file is read again, and a token that could not be looked up is looked up again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// The pause after a refused login or renewal. It doubles each time, because Vault locks out clients that try too often.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Keeps one Vault's token.
pub(crate) struct Auth {
    way: VaultAuth,
    credential: Option<SecretBytes>,
    clock: Arc<dyn Clock>,
    token_folders: Arc<TokenFolders>,
    // Held during a login, so that there is only one at a time.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    serial: u64,
    refused: Option<Refused>,
}

struct Held {
    token: Token,
    /// When it was obtained, renewed or read.
    since: Duration,
    /// How long it is valid after `since`; `None` if it never expires or this is unknown.
    ttl: Option<Duration>,
    renewable: bool,
    /// Whether `ttl` and `renewable` are known. They are not until a token is looked up.
    known: bool,
    looked_up_at: Option<Duration>,
}

/// A token, and its serial number in this process.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) secret: Arc<SecretBytes>,
    serial: u64,
}

struct Refused {
    at: Duration,
    pause: Duration,
    failure: Failure,
}

/// What a 403 means.
pub(crate) enum Verdict {
    /// The token was the cause. Try again with this one.
    TryWith(Token),
    /// The token is valid but may not do this.
    Denied,
    /// The token is not valid, and there is no other.
    TokenRefused,
}

#[derive(Serialize)]
struct Login<'a> {
    role_id: &'a str,
    secret_id: &'a str,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Deserialize)]
struct WithAuth {
    auth: Option<Lease>,
}

#[derive(Deserialize)]
struct Lease {
    client_token: Zeroizing<String>,
    lease_duration: u64,
    renewable: bool,
}

#[derive(Deserialize)]
struct WithData {
    data: LookedUp,
}

#[derive(Deserialize)]
struct LookedUp {
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

fn ttl(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

impl Held {
    fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }

    /// Whether two thirds of its TTL are over.
    fn is_due(&self, now: Duration) -> bool {
        self.ttl.is_some_and(|ttl| self.age(now) >= ttl * 2 / 3)
    }

    fn is_alive(&self, now: Duration) -> bool {
        self.ttl.is_none_or(|ttl| self.age(now) < ttl)
    }
}

impl Auth {
    pub(crate) fn new(
        way: &VaultAuth,
        credential: Option<&SecretBytes>,
        clock: Arc<dyn Clock>,
        token_folders: Arc<TokenFolders>,
    ) -> Result<Self, Failure> {
        let credential = credential.map(|secret| SecretBytes::from(secret.expose().to_vec()));
        match (way, &credential) {
            (VaultAuth::TokenFile { .. }, _) => {}
            (VaultAuth::Token, Some(token)) if is_token(token.expose()) => {}
            (VaultAuth::Token, _) => {
                return Err(Failure::Input(
                    "there is no token, or it is none that can be sent",
                ));
            }
            (VaultAuth::AppRole { .. }, Some(id)) if is_secret_id(id.expose()) => {}
            (VaultAuth::AppRole { .. }, _) => {
                return Err(Failure::Input(
                    "there is no secret id, or it is none that can be sent",
                ));
            }
        }
        Ok(Self {
            way: way.clone(),
            credential,
            clock,
            token_folders,
            state: Mutex::default(),
        })
    }

    /// A token for a request, renewed first if it is due.
    pub(crate) async fn token(&self, http: &Http, limits: Limits) -> Result<Token, Failure> {
        let mut state = self.state.lock().await;
        let refreshed = self.refresh(&mut state, http, limits).await;
        match (&state.held, refreshed) {
            // The renewal failed, but the present token is still valid.
            (Some(held), Err(failure)) if held.known && held.is_alive(self.clock.monotonic()) => {
                tracing::warn!("the token for Vault was not renewed: {failure}");
                Ok(held.token.clone())
            }
            (Some(held), Ok(())) => Ok(held.token.clone()),
            (_, Err(failure)) => Err(failure),
            (None, Ok(())) => Err(Failure::Input("there is no token")),
        }
    }

    /// Renews or replaces the token if it is due.
    pub(crate) async fn renew(&self, http: &Http, limits: Limits) -> Result<(), Failure> {
        let mut state = self.state.lock().await;
        self.refresh(&mut state, http, limits).await
    }

    /// Finds out why a request with this token was refused.
    pub(crate) async fn judge(
        &self,
        http: &Http,
        limits: Limits,
        token: &Token,
    ) -> Result<Verdict, Failure> {
        let mut state = self.state.lock().await;
        if let Some(held) = &state.held
            && held.token.serial != token.serial
        {
            // Another task was refused too, and has already got another token.
            return Ok(Verdict::TryWith(held.token.clone()));
        }
        if let VaultAuth::TokenFile { path } = &self.way {
            let read = self.read_token(path).await?;
            if !token.secret.ct_eq(read.expose()) {
                let held = self.hold(&mut state, self.clock.monotonic(), read, None);
                return Ok(Verdict::TryWith(held));
            }
        }
        let is_good = look_up(http, limits, token).await?.status == StatusCode::OK;
        match (&self.way, is_good) {
            (_, true) => Ok(Verdict::Denied),
            (VaultAuth::AppRole { .. }, false) => {
                state.held = None;
                self.refresh(&mut state, http, limits).await?;
                let held = state.held.as_ref().map(|held| held.token.clone());
                Ok(held.map_or(Verdict::TokenRefused, Verdict::TryWith))
            }
            (VaultAuth::Token | VaultAuth::TokenFile { .. }, false) => Ok(Verdict::TokenRefused),
        }
    }

    async fn refresh(
        &self,
        state: &mut MutexGuard<'_, State>,
        http: &Http,
        limits: Limits,
    ) -> Result<(), Failure> {
        let now = self.clock.monotonic();
        match &self.way {
            VaultAuth::TokenFile { path } => {
                let held = state.held.as_ref();
                if held.is_some_and(|held| held.age(now) < AGAIN_AFTER) {
                    return Ok(());
                }
                let read = self.read_token(path).await?;
                self.hold(state, now, read, None);
                Ok(())
            }
            VaultAuth::AppRole { role_id, mount } => {
                if state.held.as_ref().is_some_and(|held| !held.is_due(now)) {
                    return Ok(());
                }
                may_try(state, now)?;
                let login = self.log_in(http, limits, role_id, mount.as_str()).await;
                let lease = remember(state, now, login)?;
                let Lease {
                    client_token,
                    lease_duration,
                    ..
                } = lease;
                self.hold(state, now, bytes(&client_token), ttl(lease_duration));
                Ok(())
            }
            VaultAuth::Token => self.refresh_token(state, http, limits, now).await,
        }
    }

    async fn refresh_token(
        &self,
        state: &mut MutexGuard<'_, State>,
        http: &Http,
        limits: Limits,
        now: Duration,
    ) -> Result<(), Failure> {
        if state.held.is_none() {
            let token = self.credential.as_ref();
            let token = token.ok_or(Failure::Input("there is no token"))?;
            let token = SecretBytes::from(token.expose().to_vec());
            self.hold(state, now, token, None);
        }
        let Some(held) = state.held.as_mut() else {
            return Ok(());
        };
        if held.known {
            return self.renew_token(state, http, limits, now).await;
        }
        let recently = |at: Duration| now.saturating_sub(at) < AGAIN_AFTER;
        if held.looked_up_at.is_some_and(recently) {
            return Ok(());
        }
        let answer = look_up(http, limits, &held.token).await?;
        held.looked_up_at = Some(now);
        if answer.status == StatusCode::OK {
            let looked_up = answer.json::<WithData>("the token's own data")?.data;
            held.since = now;
            held.ttl = ttl(looked_up.ttl);
            held.renewable = looked_up.renewable;
            held.known = true;
        }
        // Else the token is invalid, which its use will show, or it may not look itself up and is used without renewal.
        Ok(())
    }

    async fn renew_token(
        &self,
        state: &mut MutexGuard<'_, State>,
        http: &Http,
        limits: Limits,
        now: Duration,
    ) -> Result<(), Failure> {
        let held = state.held.as_ref();
        let Some(held) = held.filter(|held| held.renewable && held.is_due(now)) else {
            return Ok(());
        };
        may_try(state, now)?;
        let token = held.token.clone();
        let renewal = async {
            let mut call = Call::new(Method::POST, "auth/token/renew-self");
            call.body = Some(body(&Empty {}, 16)?);
            call.token = Some(&token.secret);
            let answer = http.send(limits, &call).await?;
            match answer.status {
                StatusCode::OK => lease(&answer, "the renewed token"),
                StatusCode::FORBIDDEN => Err(Failure::TokenRefused),
                _ => Err(answer.unforeseen(call.path)),
            }
        };
        let renewal = renewal.await;
        let lease = remember(state, now, renewal)?;
        if let Some(held) = state.held.as_mut() {
            held.since = now;
            held.ttl = ttl(lease.lease_duration);
            held.renewable = lease.renewable;
        }
        Ok(())
    }

    async fn log_in(
        &self,
        http: &Http,
        limits: Limits,
        role_id: &str,
        mount: &str,
    ) -> Result<Lease, Failure> {
        let secret_id = self.credential.as_ref().map(SecretBytes::expose);
        let secret_id = std::str::from_utf8(secret_id.unwrap_or_default())
            .map_err(|_| Failure::Input("the secret id is not text"))?;
        let path = format!("auth/{mount}/login");
        let mut call = Call::new(Method::POST, &path);
        // JSON needs up to six bytes for a character.
        let room = 64 + 6 * (role_id.len() + secret_id.len());
        call.body = Some(body(&Login { role_id, secret_id }, room)?);
        let answer = http.send(limits, &call).await?;
        match answer.status {
            StatusCode::OK => lease(&answer, "the token of a login"),
            StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => {
                Err(Failure::LoginRefused(mount.to_owned()))
            }
            StatusCode::NOT_FOUND => Err(Failure::NoMount(path)),
            _ => Err(answer.unforeseen(&path)),
        }
    }

    async fn read_token(&self, path: &str) -> Result<SecretBytes, Failure> {
        let read = read_token(&self.token_folders, path).await;
        read.map_err(|why| Failure::TokenFile {
            path: path.to_owned(),
            why,
        })
    }

    fn hold(
        &self,
        state: &mut MutexGuard<'_, State>,
        since: Duration,
        token: SecretBytes,
        ttl: Option<Duration>,
    ) -> Token {
        // The same token keeps its serial number.
        let same = state
            .held
            .as_ref()
            .filter(|held| held.token.secret.ct_eq(token.expose()))
            .map(|held| held.token.clone());
        let token = same.unwrap_or_else(|| {
            state.serial += 1;
            Token {
                secret: Arc::new(token),
                serial: state.serial,
            }
        });
        state.held = Some(Held {
            token: token.clone(),
            since,
            ttl,
            renewable: false,
            // Only a token that an operator gave must be looked up.
            known: self.way != VaultAuth::Token,
            looked_up_at: None,
        });
        token
    }
}

/// Fails with the last refusal until the pause after it is over.
fn may_try(state: &State, now: Duration) -> Result<(), Failure> {
    match &state.refused {
        Some(refused) if now.saturating_sub(refused.at) < refused.pause => {
            Err(refused.failure.clone())
        }
        _ => Ok(()),
    }
}

/// Remembers a refused login or renewal, so that the next one waits. It ignores failures that may pass, and a sealed Vault.
fn remember(
    state: &mut State,
    now: Duration,
    outcome: Result<Lease, Failure>,
) -> Result<Lease, Failure> {
    match &outcome {
        Ok(_) => state.refused = None,
        Err(failure) if failure.may_pass() || *failure == Failure::Sealed => {}
        Err(failure) => {
            let before = state.refused.as_ref();
            let pause = before.map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
            state.refused = Some(Refused {
                at: now,
                pause,
                failure: failure.clone(),
            });
        }
    }
    outcome
}

async fn look_up(http: &Http, limits: Limits, token: &Token) -> Result<Answer, Failure> {
    let mut call = Call::new(Method::GET, "auth/token/lookup-self");
    call.token = Some(&token.secret);
    http.send(limits, &call).await
}

fn lease(answer: &Answer, what: &'static str) -> Result<Lease, Failure> {
    let lease = answer.json::<WithAuth>(what)?.auth;
    let lease = lease.ok_or(Failure::Garbled(what))?;
    // Batch tokens contain their permissions, and are longer than the tokens that operators get.
    let token = lease.client_token.as_bytes();
    match (1..=LONGEST_OF_LOGIN).contains(&token.len()) && token.chunks(512).all(is_token) {
        true => Ok(lease),
        false => Err(Failure::Garbled(what)),
    }
}

fn bytes(token: &str) -> SecretBytes {
    SecretBytes::from(token.as_bytes().to_vec())
}

/// Reads the token from a file below these folders.
pub(crate) async fn read_token(
    folders: &Arc<TokenFolders>,
    path: &str,
) -> Result<SecretBytes, String> {
    let (folders, path) = (Arc::clone(folders), path.to_owned());
    let read = tokio::task::spawn_blocking(move || folders.read(&path)).await;
    read.unwrap_or_else(|_| Err("it could not be read".to_owned()))
}
