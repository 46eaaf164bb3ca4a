//! Requests to one Vault with one login: deadlines, tokens, and the address in errors.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use keyway_crypto::SecretBytes;
use keyway_domain::ports::Clock;
use keyway_domain::vault::{VaultAuth, VaultRetryPolicy};

use crate::auth::{Auth, Token, Verdict};
use crate::failure::{At, Failure};
use crate::http::{Answer, Call, Http, LONGEST_ANSWER, Limits};
use crate::token_file::TokenFolders;

/// One Vault, as one login uses it.
pub(crate) struct Connection {
    pub(crate) http: Http,
    auth: Auth,
    address: String,
    retry_policy: VaultRetryPolicy,
}

impl Connection {
    pub(crate) fn new(
        http: Http,
        auth: &VaultAuth,
        credential: Option<&SecretBytes>,
        retry_policy: VaultRetryPolicy,
        clock: Arc<dyn Clock>,
        token_folders: Arc<TokenFolders>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            address: http.address().to_owned(),
            http,
            auth: Auth::new(auth, credential, clock, token_folders)?,
            retry_policy,
        })
    }

    /// The limits of an operation that begins now.
    pub(crate) fn limits(&self) -> Limits {
        Limits::within(self.retry_policy.timeout, self.retry_policy.retries)
    }

    /// The limits of an operation that begins now, which takes no longer than this and repeats no request.
    pub(crate) fn limits_without_retries(&self, longest: Duration) -> Limits {
        Limits::within(self.retry_policy.timeout.min(longest), 0)
    }

    /// The failure with this Vault's address, for the log.
    pub(crate) fn at(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> At {
        At {
            address: self.address.clone(),
            cause: cause.into(),
        }
    }

    /// Renews the token if it is due.
    pub(crate) async fn renew(&self, limits: Limits) -> Result<(), Failure> {
        self.auth.renew(&self.http, limits).await
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
