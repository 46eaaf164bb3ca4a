//! Dispatches a request to its operation, and checks its scope and that a policy can permit the operation to the caller.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use keyway_domain::access::{AccountId, Caller};
use keyway_domain::datakey::{DataKeys, names_key};
use keyway_domain::keys::{Keys, NamedKey};
use keyway_http::{Call, HandlerResult};

use crate::error_response::{Failure, data_only, unknown_operation, unsupported};
use crate::names::{Name, Names};
use crate::target::{Named, Target, of_headers};
use crate::{Aws, DATA_PREFIX, aliases, datakey, keys, mac, policy, rotation, scope, tags};

/// The domain services that the operations use.
pub(crate) struct Served {
    pub(crate) keys: Arc<Keys>,
    pub(crate) data_keys: Arc<DataKeys>,
    pub(crate) account: AccountId,
    /// The region of every ARN; `None` if it is the one that the request is signed for.
    pub(crate) region: Option<String>,
}

/// A request whose operation is known.
pub(crate) struct Asked<'a> {
    pub(crate) served: &'a Served,
    pub(crate) caller: &'a Caller,
    pub(crate) names: &'a Names<'a>,
    pub(crate) body: &'a [u8],
}

/// The result of an operation.
pub(crate) type Outcome = Result<Response<Bytes>, Failure>;

pub(crate) async fn run(served: Arc<Served>, call: Call<Aws>) -> HandlerResult<Aws> {
    let region = scope::region(&call.request)?;
    let target = match of_headers(&call.request.headers) {
        Named::Served(target) => target,
        Named::Unsupported => return Err(unsupported("this operation is not supported here")),
        Named::Unknown => return Err(unknown_operation()),
    };
    if call.prefix == DATA_PREFIX && !target.only_reads() {
        return Err(data_only(target));
    }
    let region = served.region.clone().unwrap_or(region);
    let names = Names::new(region, &served.account);
    let caller = call.caller.for_operation(target.action());
    let asked = Asked {
        served: &served,
        caller: &caller,
        names: &names,
        body: &call.request.body,
    };
    let mut response = asked
        .run(target)
        .await
        .map_err(|failure| failure.response(target, &caller, &names))?;
    if let Ok(id) = call.request_id.parse() {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    Ok(response)
}

impl Asked<'_> {
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

    async fn run(&self, target: Target) -> Outcome {
        for action in target.actions() {
            self.caller.may_ever(action)?;
        }
        match target {
            Target::CreateAlias => aliases::create(self).await,
            Target::DeleteAlias => aliases::delete(self).await,
            Target::ListAliases => aliases::list(self).await,
            Target::UpdateAlias => aliases::update(self).await,
            Target::CancelKeyDeletion => keys::cancel_deletion(self).await,
            Target::CreateKey => keys::create(self).await,
            Target::Decrypt => datakey::decrypt(self).await,
            Target::DescribeKey => keys::describe(self).await,
            Target::DisableKey => keys::disable(self).await,
            Target::DisableKeyRotation => rotation::disable(self).await,
            Target::EnableKey => keys::enable(self).await,
            Target::EnableKeyRotation => rotation::enable(self).await,
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
            Target::PutKeyPolicy => policy::put(self).await,
            Target::ReEncrypt => datakey::reencrypt(self).await,
            Target::RotateKeyOnDemand => rotation::on_demand(self).await,
            Target::ScheduleKeyDeletion => keys::schedule_deletion(self).await,
            Target::TagResource => tags::tag(self).await,
            Target::UntagResource => tags::untag(self).await,
            Target::UpdateKeyDescription => keys::update_description(self).await,
            Target::VerifyMac => mac::verify(self).await,
        }
    }
}
