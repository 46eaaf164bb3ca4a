//! The client of one Vault: deadlines, tokens and errors of all operations.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode};
use keyway_crypto::SecretBytes;
use keyway_domain::keyring::{Binding, KeyWrapper, WrapError};
use keyway_domain::ports::Clock;
use keyway_domain::vault::{
    CopyError, CopyVersion, KeyCopy, TransitKey, TransitVersions, VAULT_WRAPPER, Vault,
    VaultRetryPolicy, VaultSettings,
};
use tokio::time::timeout_at;

use crate::auth::{Auth, Token, Verdict};
use crate::failure::{At, Failure};
use crate::http::{Answer, Call, Http, LONGEST_ANSWER, Limits};
use crate::token_file::TokenFolders;
use crate::transit::{Identity, version_of};

/// The longest time for a check, where operations may take longer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Client {
    pub(crate) http: Http,
    pub(crate) auth: Auth,
    pub(crate) settings: VaultSettings,
    /// The transit key that this client has seen.
    pub(crate) identity: Mutex<Option<Identity>>,
    retry_policy: VaultRetryPolicy,
}

impl Client {
    pub(crate) fn new(
        http: Http,
        settings: &VaultSettings,
        credential: Option<&SecretBytes>,
        retry_policy: VaultRetryPolicy,
        clock: Arc<dyn Clock>,
        token_folders: Arc<TokenFolders>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            http,
            auth: Auth::new(&settings.auth, credential, clock, token_folders)?,
            settings: settings.clone(),
            identity: Mutex::default(),
            retry_policy,
        })
    }

    /// Runs an operation until its deadline, and adds this Vault's address to a failure.
    async fn within<T, E: Into<WrapError> + From<Failure>>(
        &self,
        limits: Limits,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, WrapError> {
        // Requests have timeouts of their own; this one covers the operation's other waits.
        let done = timeout_at(limits.deadline, operation)
            .await
            .unwrap_or_else(|_| Err(Failure::TimedOut.into()));
        done.map_err(|error| match error.into() {
            WrapError::Unavailable(cause) => WrapError::Unavailable(Box::new(At {
                address: self.settings.address.as_str().to_owned(),
                cause,
            })),
            error => error,
        })
    }

    fn limits(&self) -> Limits {
        Limits::within(self.retry_policy.timeout, self.retry_policy.retries)
    }

    /// Sends a request with a token, and once more with another token if the first was why Vault refused it.
    pub(crate) async fn ask(
        &self,
        limits: Limits,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Answer, Failure> {
        self.ask_for(limits, method, path, body, LONGEST_ANSWER)
            .await
    }

    pub(crate) async fn ask_for(
        &self,
        limits: Limits,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        longest_answer: usize,
    ) -> Result<Answer, Failure> {
        let send = async |token: &Token| {
            let call = Call {
                body: body.clone(),
                token: Some(&token.secret),
                longest_answer,
                ..Call::new(method.clone(), path)
            };
            self.http.send(limits, &call).await
        };
        let token = self.auth.token(&self.http, limits).await?;
        let answer = send(&token).await?;
        if answer.status != StatusCode::FORBIDDEN {
            return Ok(answer);
        }
        let denied = || Err(Failure::Denied(path.to_owned()));
        match self.auth.judge(&self.http, limits, &token).await? {
            Verdict::Denied => denied(),
            Verdict::TokenRefused => Err(Failure::TokenRefused),
            Verdict::TryWith(token) => {
                let answer = send(&token).await?;
                if answer.status != StatusCode::FORBIDDEN {
                    return Ok(answer);
                }
                match self.auth.judge(&self.http, limits, &token).await? {
                    Verdict::Denied => denied(),
                    Verdict::TokenRefused | Verdict::TryWith(_) => Err(Failure::TokenRefused),
                }
            }
        }
    }
}

#[async_trait]
impl KeyWrapper for Client {
    fn name(&self) -> &'static str {
        VAULT_WRAPPER
    }

    async fn wrap(&self, binding: &Binding<'_>, material: &[u8]) -> Result<Vec<u8>, WrapError> {
        let limits = self.limits();
        self.within(limits, self.encrypt(limits, binding, material))
            .await
    }

    async fn unwrap(
        &self,
        binding: &Binding<'_>,
        wrapped: &[u8],
    ) -> Result<SecretBytes, WrapError> {
        let limits = self.limits();
        self.within(limits, self.decrypt(limits, binding, wrapped))
            .await
    }
}

#[async_trait]
impl Vault for Client {
    async fn check(&self, key: TransitKey) -> Result<(), WrapError> {
        let limits = Limits::within(self.retry_policy.timeout.min(CHECK_TIMEOUT), 0);
        self.within(limits, self.examine(limits, key)).await
    }

    async fn renew(&self) -> Result<(), WrapError> {
        let limits = self.limits();
        self.within(limits, self.auth.renew(&self.http, limits))
            .await
    }

    async fn copy(&self, id: &str) -> Result<Option<KeyCopy>, WrapError> {
        let limits = self.limits();
        self.within(limits, self.read_copy(limits, id)).await
    }

    async fn put_copy(&self, id: &str, value: &[u8], seen: CopyVersion) -> Result<(), CopyError> {
        let limits = self.limits();
        let written = self
            .within(limits, self.write_copy(limits, id, value, seen))
            .await;
        match written {
            Ok(true) => Ok(()),
            Ok(false) => Err(CopyError::Conflict),
            Err(error) => Err(error.into()),
        }
    }

    async fn remove_copy(&self, id: &str) -> Result<(), WrapError> {
        let limits = self.limits();
        self.within(limits, self.delete_copy(limits, id)).await
    }

    async fn copies(&self) -> Result<Vec<String>, WrapError> {
        let limits = self.limits();
        self.within(limits, self.list_copies(limits)).await
    }

    async fn transit_versions(&self) -> Result<TransitVersions, WrapError> {
        let limits = self.limits();
        self.within(limits, self.versions(limits)).await
    }

    async fn rotate_transit(&self) -> Result<(), WrapError> {
        let limits = self.limits();
        self.within(limits, self.add_version(limits)).await
    }

    async fn rewrap(&self, binding: &Binding<'_>, wrapped: &[u8]) -> Result<Vec<u8>, WrapError> {
        let limits = self.limits();
        self.within(limits, self.encrypt_anew(limits, binding, wrapped))
            .await
    }

    fn version_of(&self, wrapped: &[u8]) -> Option<u64> {
        version_of(wrapped)
    }

    async fn refuse_below(&self, version: u64) -> Result<(), WrapError> {
        let limits = self.limits();
        self.within(limits, self.set_minimum(limits, version)).await
    }
}
