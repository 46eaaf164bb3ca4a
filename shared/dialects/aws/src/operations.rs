//! Dispatches a request to its operation, and checks its scope and that a policy can permit the operation to the caller.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use keyway_domain::access::{AccountId, Caller};
use keyway_domain::datakey::DataKeys;
use keyway_domain::keys::Keys;
use keyway_http::{Call, HandlerResult};

use crate::error_response::{Failure, data_only, unknown_operation, unsupported};
use crate::names::Names;
use crate::target::{Named, Target, of_headers};
use crate::{Aws, DATA_PREFIX, datakey, keys, mac, policy, rotation, scope, tags};

/// The domain services that the operations use.
pub(crate) struct Served {
    pub(crate) keys: Arc<Keys>,
    pub(crate) data_keys: Arc<DataKeys>,
    pub(crate) account: AccountId,
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
    let names = Names::new(region, &served.account);
    let asked = Asked {
        served: &served,
        caller: &call.caller,
        names: &names,
        body: &call.request.body,
    };
    let mut response = asked
        .run(target)
        .await
        .map_err(|failure| failure.response(target, &call.caller, &names))?;
    if let Ok(id) = call.request_id.parse() {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    Ok(response)
}

impl Asked<'_> {
    async fn run(&self, target: Target) -> Outcome {
        self.caller.may_ever(target.action())?;
        match target {
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
