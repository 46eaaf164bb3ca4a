//! Dispatches a request to its operation, and checks its scope and that a policy can permit the operation to the caller.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response};
use keyway_domain::KmsError;
use keyway_domain::access::Caller;
use keyway_domain::datakey::names_key;
use keyway_domain::keys::{Keys, NamedKey};
use keyway_http::{Call, HandlerResult};

use crate::error_response::{ErrorResponse, Failure, data_only, unknown_operation, unsupported};
use crate::names::{Name, Names};
use crate::target::{Named, Target, of_headers};
use crate::{Aws, Serving, aliases, datakey, keys, mac, policy, rotation, scope, tags};

/// What the operations on keys use, besides what all operations use.
pub(crate) struct Managing {
    pub(crate) serving: Arc<Serving>,
    pub(crate) keys: Arc<Keys>,
}

/// A request whose operation is known.
pub(crate) struct Asked<'a> {
    pub(crate) served: &'a Serving,
    pub(crate) caller: &'a Caller,
    pub(crate) names: &'a Names<'a>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// The result of an operation.
pub(crate) type Outcome = Result<Response<Bytes>, Failure>;

/// Runs any operation.
pub(crate) async fn run(managing: Arc<Managing>, call: Call<Aws>) -> HandlerResult<Aws> {
    let (target, names) = asked_for(&managing.serving, &call)?;
    let caller = call.caller.for_operation(target.action());
    let asked = Asked::new(&managing.serving, &caller, &call, &names);
    let outcome = asked.run(target, &managing.keys).await;
    asked.answer(target, outcome, &call)
}

/// Runs an operation that changes no key, and refuses all others.
pub(crate) async fn run_data(serving: Arc<Serving>, call: Call<Aws>) -> HandlerResult<Aws> {
    let (target, names) = asked_for(&serving, &call)?;
    let caller = call.caller.for_operation(target.action());
    let asked = Asked::new(&serving, &caller, &call, &names);
    let outcome = asked.read(target).await;
    asked.answer(target, outcome, &call)
}

/// The operation that a request asks for, and the names in its region.
fn asked_for<'s>(
    serving: &'s Serving,
    call: &Call<Aws>,
) -> Result<(Target, Names<'s>), ErrorResponse> {
    let region = scope::region(&call.request)?;
    let region = serving.region.clone().unwrap_or(region);
    match of_headers(&call.request.headers) {
        Named::Served(target) => Ok((target, Names::new(region, &serving.account))),
        Named::Unsupported => Err(unsupported("this operation is not supported here")),
        Named::Unknown => Err(unknown_operation()),
    }
}

impl<'a> Asked<'a> {
    fn new(
        served: &'a Serving,
        caller: &'a Caller,
        call: &'a Call<Aws>,
        names: &'a Names<'a>,
    ) -> Self {
        Self {
            served,
            caller,
            names,
            headers: &call.request.headers,
            body: &call.request.body,
        }
    }

    fn answer(&self, target: Target, outcome: Outcome, call: &Call<Aws>) -> HandlerResult<Aws> {
        let mut response =
            outcome.map_err(|failure| failure.response(target, self.caller, self.names))?;
        if let Ok(id) = call.request_id.parse() {
            response.headers_mut().insert("x-amzn-requestid", id);
        }
        Ok(response)
    }

    /// The key that a member names, also by an alias.
    pub(crate) async fn named(
        &self,
        member: &'static str,
        text: Option<String>,
    ) -> Result<NamedKey, Failure> {
        match self.names.name(member, text)? {
            Name::Key(id) => Ok(id.into()),
            Name::Alias(alias) => {
                let key = self.served.data_keys.resolve(&alias).await?;
                self.names.resolved(alias, &key);
                Ok(key)
            }
        }
    }

    /// The key that a ciphertext must be under, if a member names one.
    pub(crate) async fn expected(
        &self,
        member: &'static str,
        text: Option<String>,
        ciphertext: &[u8],
    ) -> Result<Option<NamedKey>, Failure> {
        let Some(text) = text else {
            return Ok(None);
        };
        match self.names.name(member, Some(text))? {
            // The ciphertext's key is checked first, and the caller knows that key already.
            Name::Alias(alias) if names_key(ciphertext) => {
                Ok(Some(self.served.data_keys.resolve(&alias).await?))
            }
            Name::Alias(alias) => {
                let key = self.served.data_keys.resolve(&alias).await?;
                self.names.resolved(alias, &key);
                Ok(Some(key))
            }
            Name::Key(id) => Ok(Some(id.into())),
        }
    }

    fn may_ever(&self, target: Target) -> Result<(), KmsError> {
        target
            .actions()
            .into_iter()
            .try_for_each(|action| self.caller.may_ever(action))
    }

    async fn run(&self, target: Target, keys: &Keys) -> Outcome {
        self.may_ever(target)?;
        match target {
            Target::CreateAlias => aliases::create(self, keys).await,
            Target::DeleteAlias => aliases::delete(self, keys).await,
            Target::UpdateAlias => aliases::update(self, keys).await,
            Target::CancelKeyDeletion => keys::cancel_deletion(self, keys).await,
            Target::CreateKey => keys::create(self, keys).await,
            Target::DisableKey => keys::disable(self, keys).await,
            Target::DisableKeyRotation => rotation::disable(self, keys).await,
            Target::EnableKey => keys::enable(self, keys).await,
            Target::EnableKeyRotation => rotation::enable(self, keys).await,
            Target::PutKeyPolicy => policy::put(self, keys).await,
            Target::RotateKeyOnDemand => rotation::on_demand(self, keys).await,
            Target::ScheduleKeyDeletion => keys::schedule_deletion(self, keys).await,
            Target::TagResource => tags::tag(self, keys).await,
            Target::UntagResource => tags::untag(self, keys).await,
            Target::UpdateKeyDescription => keys::update_description(self, keys).await,
            target => self.read(target).await,
        }
    }

    async fn read(&self, target: Target) -> Outcome {
        self.may_ever(target)?;
        match target {
            Target::ListAliases => aliases::list(self).await,
            Target::Decrypt => datakey::decrypt(self).await,
            Target::DescribeKey => keys::describe(self).await,
            Target::Encrypt => datakey::encrypt(self).await,
            Target::GenerateDataKey => datakey::generate(self).await,
            Target::GenerateDataKeyWithoutPlaintext => {
                datakey::generate_without_plaintext(self).await
            }
            Target::GenerateMac => mac::generate(self).await,
            Target::GenerateRandom => datakey::random(self).await,
            Target::GetKeyPolicy => policy::get(self).await,
            Target::GetKeyRotationStatus => rotation::status(self).await,
            Target::ListKeyPolicies => policy::list(self).await,
            Target::ListKeyRotations => rotation::list(self).await,
            Target::ListKeys => keys::list(self).await,
            Target::ListResourceTags => tags::list(self).await,
            Target::ReEncrypt => datakey::reencrypt(self).await,
            Target::VerifyMac => mac::verify(self).await,
            Target::CancelKeyDeletion
            | Target::CreateAlias
            | Target::CreateKey
            | Target::DeleteAlias
            | Target::DisableKey
            | Target::DisableKeyRotation
            | Target::EnableKey
            | Target::EnableKeyRotation
            | Target::PutKeyPolicy
            | Target::RotateKeyOnDemand
            | Target::ScheduleKeyDeletion
            | Target::TagResource
            | Target::UntagResource
            | Target::UpdateAlias
            | Target::UpdateKeyDescription => Err(data_only(target).into()),
        }
    }
}
