//! Names of keys, aliases and callers: ids and ARNs.

use std::sync::{Mutex, PoisonError};

use keyway_domain::access::{AccountId, Caller, Grant};
use keyway_domain::keys::{AliasName, KeyId, NamedKey};

use crate::ErrorResponse;
use crate::error_response::{invalid_arn, not_found};
use crate::members::given;

/// A key or an alias in a request.
pub(crate) enum Name {
    Key(KeyId),
    Alias(AliasName),
}

/// Formats and parses names for one request.
pub(crate) struct Names<'a> {
    region: String,
    account: &'a AccountId,
    /// The aliases that the request names keys by. Errors name the alias and never its key, which the caller may not know.
    aliases: Mutex<Vec<(KeyId, AliasName)>>,
}

/// The partition of a region: AWS's own are named by the regions' beginnings.
fn partition(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "aws-cn"
    } else if region.starts_with("us-gov-") {
        "aws-us-gov"
    } else {
        "aws"
    }
}

impl<'a> Names<'a> {
    pub(crate) const fn new(region: String, account: &'a AccountId) -> Self {
        Self {
            region,
            account,
            aliases: Mutex::new(Vec::new()),
        }
    }

    pub(crate) const fn account(&self) -> &'a AccountId {
        self.account
    }

    /// The ARN of a key.
    pub(crate) fn arn(&self, id: &KeyId) -> String {
        self.arn_of(&format!("key/{id}"))
    }

    /// The ARN of a resource of the account in this region, such as `key/ID`.
    pub(crate) fn arn_of(&self, resource: &str) -> String {
        let (region, account) = (&self.region, self.account);
        let partition = partition(region);
        format!("arn:{partition}:kms:{region}:{account}:{resource}")
    }

    /// Remembers that the request names the key by this alias.
    pub(crate) fn resolved(&self, alias: AliasName, key: &NamedKey) {
        let mut aliases = self.aliases.lock().unwrap_or_else(PoisonError::into_inner);
        aliases.push((key.id.clone(), alias));
    }

    /// The alias that the request names the key by, if any.
    pub(crate) fn alias_of(&self, id: &KeyId) -> Option<AliasName> {
        let aliases = self.aliases.lock().unwrap_or_else(PoisonError::into_inner);
        let found = aliases.iter().find(|(key, _)| key == id);
        found.map(|(_, alias)| alias.clone())
    }

    /// The ARN of the account itself.
    pub(crate) fn root(&self) -> String {
        let partition = partition(&self.region);
        format!("arn:{partition}:iam::{}:root", self.account)
    }

    /// The ARN of a caller.
    pub(crate) fn user(&self, caller: &Caller) -> String {
        let (account, principal) = (self.account, caller.principal());
        let partition = partition(&self.region);
        match (caller.session(), caller.grant()) {
            (Some(session), _) => {
                let (parent, name) = (session.parent.as_str(), session.name.as_str());
                format!("arn:{partition}:sts::{account}:assumed-role/{parent}/{name}")
            }
            (None, Grant::Owner) => self.root(),
            // The name of a caller from a gateway is an ARN.
            (None, _) if principal.starts_with("arn:") => principal.to_owned(),
            (None, _) => format!("arn:{partition}:iam::{account}:user/{principal}"),
        }
    }

    /// The key or alias that a member names, by id, name or ARN.
    pub(crate) fn name(
        &self,
        member: &'static str,
        text: Option<String>,
    ) -> Result<Name, ErrorResponse> {
        let text = given(text)?;
        let id = match text.strip_prefix("arn:") {
            Some(rest) => self.of_arn(&text, rest)?,
            None => text.as_str(),
        };
        if id.starts_with(AliasName::PREFIX) {
            let alias = AliasName::parse(member, id);
            return alias.map(Name::Alias).map_err(|_| self.no_alias(id));
        }
        let id = KeyId::parse(member, id);
        id.map(Name::Key)
            .map_err(|_| not_found(format!("Invalid keyId '{text}'")))
    }

    /// The key that a member names by id or ARN. Operations that change a key accept no alias.
    pub(crate) fn key(
        &self,
        member: &'static str,
        text: Option<String>,
    ) -> Result<KeyId, ErrorResponse> {
        let is_arn = text.as_ref().is_some_and(|text| text.starts_with("arn:"));
        match self.name(member, text)? {
            Name::Key(id) => Ok(id),
            Name::Alias(alias) if is_arn => Err(invalid_arn(&self.arn_of(alias.as_str()))),
            Name::Alias(alias) => Err(not_found(format!("Invalid keyId '{alias}'"))),
        }
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

    /// The error for an alias that does not exist.
    pub(crate) fn no_alias(&self, name: &str) -> ErrorResponse {
        not_found(format!("Alias {} is not found.", self.arn_of(name)))
    }

    /// The id in an ARN, or the alias with its prefix.
    fn of_arn<'t>(&self, text: &str, rest: &'t str) -> Result<&'t str, ErrorResponse> {
        let mut parts = rest.splitn(5, ':');
        let (Some(named), Some("kms"), Some(region), Some(account), Some(resource)) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(invalid_arn(text));
        };
        if !named.starts_with("aws") {
            return Err(invalid_arn(text));
        }
        if region != self.region {
            return Err(not_found(format!("Invalid arn {region}")));
        }
        if named != partition(region) {
            return Err(invalid_arn(text));
        }
        let is_alias = resource.starts_with(AliasName::PREFIX);
        let Some(name) = resource
            .strip_prefix("key/")
            .filter(|id| !id.starts_with(AliasName::PREFIX))
            .or(is_alias.then_some(resource))
        else {
            return Err(invalid_arn(text));
        };
        if account != self.account.as_str() {
            return Err(not_found(match is_alias {
                true => format!("Alias {text} is not found."),
                false => format!("Key '{text}' does not exist"),
            }));
        }
        Ok(name)
    }
}
