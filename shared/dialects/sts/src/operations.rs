//! The operations of STS: decode, operate, encode.

use std::sync::Arc;

use keyway_auth::WHO_CALLS;
use keyway_domain::access::{
    AccountId, Caller, Grant, Lifetime, SessionName, Sessions, WantedSession,
};
use keyway_domain::policy::Policy;
use keyway_http::{Call, Class, HandlerResult, Operation};

use crate::answers::{
    AssumeRoleResponse, AssumeRoleResult, AssumedRoleUser, Credentials, GetCallerIdentityResponse,
    GetCallerIdentityResult, ResponseMetadata, XMLNS, xml,
};
use crate::error_response::{invalid, invalid_action, missing_action, of_gateway};
use crate::form::Form;
use crate::{Asking, ErrorResponse, Sts};

/// The only version of this protocol.
const VERSION: &str = "2011-06-15";
/// AWS's limit, in bytes.
const LONGEST_ARN: usize = 2048;
/// The name of a session for which the client gives none, as MinIO's clients do.
const NAMELESS: &str = "session";

const ASSUME_ROLE: Operation = Operation {
    name: "sts:AssumeRole",
    class: Class::Mutation,
};
pub(crate) struct Served {
    pub(crate) sessions: Option<Arc<Sessions>>,
    pub(crate) account: AccountId,
}

pub(crate) async fn run(served: Arc<Served>, call: Call<Sts>) -> HandlerResult<Sts> {
    let mut form = Form::parse(&call.request.body)?;
    let action = form.take("Action").ok_or_else(missing_action)?;
    let version = form.take("Version");
    if version.is_some_and(|version| version != VERSION) {
        return Err(invalid("Version", "must be 2011-06-15"));
    }
    let Asking { caller, operation } = &call.caller;
    match action.as_str() {
        "AssumeRole" => {
            operation.set(ASSUME_ROLE).ok();
            assume_role(&served, caller, form, &call.request_id).await
        }
        "GetCallerIdentity" => {
            operation.set(WHO_CALLS).ok();
            form.finish()?;
            Ok(xml(&GetCallerIdentityResponse {
                xmlns: XMLNS,
                result: served.identity(caller),
                metadata: ResponseMetadata::of(&call.request_id),
            }))
        }
        _ => Err(invalid_action()),
    }
}

async fn assume_role(
    served: &Served,
    caller: &Caller,
    form: Form,
    request_id: &str,
) -> HandlerResult<Sts> {
    let Some(sessions) = &served.sessions else {
        return Err(of_gateway());
    };
    let wanted = wanted(form, &served.account)?;
    let key = sessions.begin(caller, &wanted).await?;
    let (parent, name) = (caller.principal(), wanted.name.as_str());
    Ok(xml(&AssumeRoleResponse {
        xmlns: XMLNS,
        result: AssumeRoleResult {
            user: AssumedRoleUser {
                arn: served.session_arn(parent, name),
                id: format!("{parent}:{name}"),
            },
            credentials: Credentials::of(&key)?,
        },
        metadata: ResponseMetadata::of(request_id),
    }))
}

fn wanted(mut form: Form, account: &AccountId) -> Result<WantedSession, ErrorResponse> {
    // Accepted without effect: there are no roles and no other accounts.
    for unused in ["RoleArn", "ExternalId"] {
        if form
            .take(unused)
            .is_some_and(|value| value.len() > LONGEST_ARN)
        {
            return Err(invalid(unused, "is longer than 2048 bytes"));
        }
    }
    let name = form.take("RoleSessionName");
    let lifetime = match form.take("DurationSeconds") {
        None => Lifetime::default(),
        Some(text) => {
            let seconds = text
                .parse()
                .map_err(|_| invalid("DurationSeconds", "must be a whole number of seconds"))?;
            Lifetime::seconds(seconds)?
        }
    };
    let policy = match form.take("Policy") {
        None => None,
        Some(document) => {
            let policy = Policy::parse(&document)?;
            // A `Deny` of another account would deny nothing. The regions are checked when the session is used.
            let here = policy.clone().here(account.as_str(), None);
            here.map_err(|reason| invalid("Policy", &reason))?;
            Some(policy)
        }
    };
    form.finish()?;
    Ok(WantedSession {
        name: SessionName::parse(name.as_deref().unwrap_or(NAMELESS))?,
        lifetime,
        policy,
    })
}

impl Served {
    fn session_arn(&self, parent: &str, name: &str) -> String {
        format!("arn:aws:sts::{}:assumed-role/{parent}/{name}", self.account)
    }

    fn identity(&self, caller: &Caller) -> GetCallerIdentityResult {
        let account = &self.account;
        let principal = caller.principal();
        let (arn, user_id) = match (caller.session(), caller.grant()) {
            (Some(session), _) => {
                let (parent, name) = (session.parent.as_str(), session.name.as_str());
                (self.session_arn(parent, name), format!("{parent}:{name}"))
            }
            (None, Grant::Owner) => (format!("arn:aws:iam::{account}:root"), account.to_string()),
            // The name of a caller from a gateway is an ARN.
            (None, _) if principal.starts_with("arn:") => {
                (principal.to_owned(), principal.to_owned())
            }
            (None, _) => (
                format!("arn:aws:iam::{account}:user/{principal}"),
                principal.to_owned(),
            ),
        };
        GetCallerIdentityResult {
            arn,
            user_id,
            account: account.to_string(),
        }
    }
}
