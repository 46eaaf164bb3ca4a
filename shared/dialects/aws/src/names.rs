//! Names of keys and callers: ids and ARNs.

use std::sync::OnceLock;

use keyway_domain::access::{AccountId, Caller, Grant};
use keyway_domain::keys::KeyId;

use crate::ErrorResponse;
use crate::error_response::{invalid_arn, length, not_found, null};

/// The longest id or ARN, in characters.
const LONGEST: usize = 2048;

/// Formats and parses names for one request.
pub(crate) struct Names<'a> {
    region: String,
    account: &'a AccountId,
    /// The key that the request names, for errors.
    asked: OnceLock<KeyId>,
}

impl<'a> Names<'a> {
    pub(crate) const fn new(region: String, account: &'a AccountId) -> Self {
        Self {
            region,
            account,
            asked: OnceLock::new(),
        }
    }

    pub(crate) const fn account(&self) -> &'a AccountId {
        self.account
    }

    /// The ARN of a key.
    pub(crate) fn arn(&self, id: &KeyId) -> String {
        self.arn_of(&format!("key/{id}"))
    }

    fn arn_of(&self, resource: &str) -> String {
        format!("arn:aws:kms:{}:{}:{resource}", self.region, self.account)
    }

    /// The ARN of the key that the request names.
    pub(crate) fn asked_arn(&self) -> Option<String> {
        self.asked.get().map(|id| self.arn(id))
    }

    /// The ARN of the account itself.
    pub(crate) fn root(&self) -> String {
        format!("arn:aws:iam::{}:root", self.account)
    }

    /// The ARN of a caller.
    pub(crate) fn user(&self, caller: &Caller) -> String {
        let (account, principal) = (self.account, caller.principal());
        match (caller.session(), caller.grant()) {
            (Some(session), _) => {
                let (parent, name) = (session.parent.as_str(), session.name.as_str());
                format!("arn:aws:sts::{account}:assumed-role/{parent}/{name}")
            }
            (None, Grant::Owner) => self.root(),
            // The name of a caller from a gateway is an ARN.
            (None, _) if principal.starts_with("arn:") => principal.to_owned(),
            (None, _) => format!("arn:aws:iam::{account}:user/{principal}"),
        }
    }

    /// The key that a member names by id or ARN.
    pub(crate) fn key(
        &self,
        member: &'static str,
        text: Option<String>,
    ) -> Result<KeyId, ErrorResponse> {
        let text = text.ok_or_else(|| null(member))?;
        let size = text.chars().count();
        length(member, Some(&text), size, 1, LONGEST)?;
        let id = match text.strip_prefix("arn:") {
            Some(rest) => self.of_arn(&text, rest)?,
            None => text.as_str(),
        };
        if id.starts_with("alias/") {
            let arn = self.arn_of(id);
            return Err(not_found(format!("Alias {arn} is not found.")));
        }
        let id =
            KeyId::parse(member, id).map_err(|_| not_found(format!("Invalid keyId '{text}'")))?;
        self.asked.set(id.clone()).ok();
        Ok(id)
    }

    /// As [`Names::key`], but the member is optional.
    pub(crate) fn some_key(
        &self,
        member: &'static str,
        text: Option<String>,
    ) -> Result<Option<KeyId>, ErrorResponse> {
        match text {
            Some(text) => self.key(member, Some(text)).map(Some),
            None => Ok(None),
        }
    }

    /// The id in an ARN, or the alias with its prefix.
    fn of_arn<'t>(&self, text: &str, rest: &'t str) -> Result<&'t str, ErrorResponse> {
        let mut parts = rest.splitn(5, ':');
        let (Some(partition), Some("kms"), Some(region), Some(account), Some(resource)) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(invalid_arn(text));
        };
        if !partition.starts_with("aws") {
            return Err(invalid_arn(text));
        }
        if region != self.region {
            return Err(not_found(format!("Invalid arn {region}")));
        }
        let is_alias = resource.starts_with("alias/");
        let Some(name) = resource
            .strip_prefix("key/")
            .or(is_alias.then_some(resource))
        else {
            return Err(invalid_arn(text));
        };
        if account != self.account.to_string() {
            return Err(not_found(format!("Key '{text}' does not exist")));
        }
        Ok(name)
    }
}
