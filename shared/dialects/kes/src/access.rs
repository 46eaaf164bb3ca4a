//! Policies and identities: decode, operate, encode.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use keyway_domain::KmsError;
use keyway_domain::access::Caller;
use keyway_domain::identity::{Identities, KnownIdentity, NameQuery, NamesPage, PathPolicy, Rules};
use keyway_domain::paths::{PathPattern, PatternKind};
use keyway_http::{Call, HandlerResult};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Kes;
use crate::endpoint::OnAccess;
use crate::error_response::{bad, unsupported};
use crate::generation::{IdentityShape, PolicyShape};
use crate::names::{self, Listing, PAGE, Shape};
use crate::wire::{self, Fields, Object};

/// Patterns as an object whose values are ignored, or as an array; `null` for none.
#[derive(Default)]
struct Patterns(Vec<String>);

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PatternsVisitor;

        impl<'de> Visitor<'de> for PatternsVisitor {
            type Value = Patterns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("patterns")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Patterns, A::Error> {
                let mut patterns = Vec::new();
                while let Some((pattern, _)) = map.next_entry::<String, IgnoredAny>()? {
                    patterns.push(pattern);
                }
                Ok(Patterns(patterns))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Patterns, A::Error> {
                let mut patterns = Vec::new();
                while let Some(pattern) = seq.next_element()? {
                    patterns.push(pattern);
                }
                Ok(Patterns(patterns))
            }
        }

        deserializer.deserialize_any(PatternsVisitor)
    }
}

/// Whether a pattern matches no path of this API: it is malformed, or matches only paths that begin otherwise.
pub fn matches_no_path(pattern: &str) -> bool {
    let parsed = PathPattern::parse(pattern);
    let start = parsed.literal_prefix();
    let known = ["/v1/", "/version"];
    let may_begin = |path: &&str| match parsed.kind() {
        PatternKind::Exact => start.starts_with(path),
        _ => start.starts_with(path) || path.starts_with(&start),
    };
    parsed.kind() == PatternKind::Malformed
        || pattern.is_empty()
        || pattern.contains(char::is_whitespace)
        || !known.iter().any(may_begin)
}

/// The oldest clients call `allow` `paths`.
#[derive(Default)]
pub(crate) struct PolicyBody {
    paths: Patterns,
    allow: Patterns,
    deny: Patterns,
}

impl Fields for PolicyBody {
    const NAMES: &[&str] = &["paths", "allow", "deny"];

    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        let field = match name {
            "paths" => &mut self.paths,
            "allow" => &mut self.allow,
            "deny" => &mut self.deny,
            _ => return Ok(false),
        };
        *field = wire::or_zero(map)?;
        Ok(true)
    }
}

pub(crate) async fn write_policy(on: Arc<OnAccess>, call: Call<Kes>) -> HandlerResult<Kes> {
    let name = names::policy(call.params.get("name"))?;
    let Object(body) = wire::json::<Object<PolicyBody>>(&call.request.body)?;
    let allow = body.paths.0.into_iter().chain(body.allow.0);
    let rules = Rules::parse(allow, body.deny.0)?;
    let caller = call.caller.caller()?;
    on.control.write(caller, &name, &rules).await?;
    // KES accepts any text as a pattern, so this is no error here either.
    let idle = rules.deny().filter(|pattern| matches_no_path(pattern));
    let idle = idle.count();
    if idle > 0 {
        tracing::warn!(
            policy = name.as_str(),
            patterns = idle,
            "a policy was written of which `deny` has patterns that match no path, and deny nothing"
        );
    }
    Ok(wire::empty())
}

pub(crate) async fn delete_policy(on: Arc<OnAccess>, call: Call<Kes>) -> HandlerResult<Kes> {
    let name = names::policy(call.params.get("name"))?;
    match on.control.delete(call.caller.caller()?, &name).await {
        Err(KmsError::PolicyNotFound(_)) if on.generation.removes_what_is_absent() => {}
        deleted => deleted?,
    }
    Ok(wire::empty())
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct PolicyLine {
    name: String,
    created_at: String,
    created_by: String,
}

impl From<PathPolicy> for PolicyLine {
    fn from(policy: PathPolicy) -> Self {
        Self {
            name: policy.name.to_string(),
            created_at: policy.created_at.to_string(),
            created_by: policy.created_by,
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct PolicyAuthor<'a> {
    created_at: String,
    created_by: &'a str,
}

pub(crate) async fn describe_policy(on: Arc<OnAccess>, call: Call<Kes>) -> HandlerResult<Kes> {
    let name = names::policy(call.params.get("name"))?;
    let caller = call.caller.caller()?;
    let policy = on.identities.policy(caller, &name).await?;
    if on.generation.is_nested() {
        return wire::ok(&PolicyAuthor {
            created_at: policy.created_at.to_string(),
            created_by: &policy.created_by,
        });
    }
    wire::ok(&PolicyLine::from(policy))
}

/// Patterns as an object whose values mean nothing.
struct Allowed<'a>(Vec<&'a str>);

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct Nothing {}

impl Allowed<'_> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Allowed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|pattern| (pattern, Nothing {})))
    }
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct PolicyRead<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Allowed::is_empty")]
    #[cfg_attr(feature = "openapi", schemars(with = "BTreeMap<String, Nothing>"))]
    allow: Allowed<'a>,
    #[serde(skip_serializing_if = "Allowed::is_empty")]
    #[cfg_attr(feature = "openapi", schemars(with = "BTreeMap<String, Nothing>"))]
    deny: Allowed<'a>,
    created_at: String,
    created_by: &'a str,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct PolicyArrays<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<&'a str>,
    created_at: String,
    created_by: &'a str,
}

/// Clients refuse any other field.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct PolicyRules<'a> {
    allow: Vec<&'a str>,
    deny: Vec<&'a str>,
}

/// Clients refuse any other field.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct PolicyPaths<'a> {
    paths: Vec<&'a str>,
}

pub(crate) async fn read_policy(on: Arc<OnAccess>, call: Call<Kes>) -> HandlerResult<Kes> {
    let name = names::policy(call.params.get("name"))?;
    let caller = call.caller.caller()?;
    let policy = on.identities.policy(caller, &name).await?;
    let (allow, deny) = (policy.rules.allow(), policy.rules.deny());
    match on.generation.policy() {
        PolicyShape::Objects => {}
        PolicyShape::Arrays => {
            return wire::ok(&PolicyArrays {
                allow: allow.collect(),
                deny: deny.collect(),
                created_at: policy.created_at.to_string(),
                created_by: &policy.created_by,
            });
        }
        PolicyShape::Rules => {
            return wire::ok(&PolicyRules {
                allow: allow.collect(),
                deny: deny.collect(),
            });
        }
        // Without `deny` the client would see a wider policy than it is, and widen it by writing it back.
        PolicyShape::Paths if deny.len() > 0 => {
            return Err(unsupported(
                "the policy denies paths, which clients of this release cannot read",
            ));
        }
        PolicyShape::Paths => {
            return wire::ok(&PolicyPaths {
                paths: allow.collect(),
            });
        }
    }
    wire::ok(&PolicyRead {
        name: policy.name.as_str(),
        allow: Allowed(policy.rules.allow().collect()),
        deny: Allowed(policy.rules.deny().collect()),
        created_at: policy.created_at.to_string(),
        created_by: &policy.created_by,
    })
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct PolicyPage {
    names: Vec<String>,
    continue_at: String,
}

pub(crate) async fn list_policies(on: Arc<OnAccess>, call: Call<Kes>) -> HandlerResult<Kes> {
    let listing = Listing::parse(call.params.get("name"))?;
    let shape = listing.shape(on.generation.policies(), &call.request.headers);
    let caller = call.caller.caller()?;
    let found = Found::<PathPolicy>::of(&listing, shape, &on.identities, caller).await?;
    match shape {
        Shape::Page => wire::ok(&PolicyPage {
            names: found.names(),
            continue_at: found.continue_at(&listing),
        }),
        Shape::Lines => wire::lines(found.items.into_iter().map(PolicyLine::from)),
        Shape::Whole => wire::ok(&found.names()),
    }
}

/// An item of a listing.
trait Listed: Sized + Send {
    fn name(&self) -> &str;

    fn page(
        identities: &Identities,
        caller: &Caller,
        query: NameQuery<'_>,
    ) -> impl Future<Output = Result<NamesPage<Self>, KmsError>> + Send;
}

impl Listed for PathPolicy {
    fn name(&self) -> &str {
        self.name.as_str()
    }

    async fn page(
        identities: &Identities,
        caller: &Caller,
        query: NameQuery<'_>,
    ) -> Result<NamesPage<Self>, KmsError> {
        identities.list_policies(caller, query).await
    }
}

impl Listed for KnownIdentity {
    fn name(&self) -> &str {
        self.identity.as_str()
    }

    async fn page(
        identities: &Identities,
        caller: &Caller,
        query: NameQuery<'_>,
    ) -> Result<NamesPage<Self>, KmsError> {
        identities.list(caller, query).await
    }
}

/// Some of the items that a listing asks for.
struct Found<T> {
    items: Vec<T>,
    more: bool,
}

impl<T: Listed> Found<T> {
    /// As many items as an answer of this shape may have.
    async fn of(
        listing: &Listing,
        shape: Shape,
        identities: &Identities,
        caller: &Caller,
    ) -> Result<Self, KmsError> {
        let prefix = listing.prefix();
        let mut after = listing.after().map(str::to_owned);
        let mut items: Vec<T> = Vec::new();
        loop {
            let query = NameQuery {
                prefix: &prefix,
                after: after.as_deref(),
                limit: PAGE,
            };
            let page = T::page(identities, caller, query).await?;
            after = page.items.last().map(|last| last.name().to_owned());
            for item in page.items {
                if !listing.wants(item.name()) {
                    continue;
                }
                if items.len() == shape.limit() {
                    return Ok(Self { items, more: true });
                }
                items.push(item);
            }
            if !page.more {
                return Ok(Self { items, more: false });
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.items
            .iter()
            .map(|item| item.name().to_owned())
            .collect()
    }

    /// The pattern that lists the rest; empty if there is none.
    fn continue_at(&self, listing: &Listing) -> String {
        let last = self.items.last().filter(|_| self.more);
        last.map(|last| listing.continue_at(last.name()))
            .unwrap_or_default()
    }
}

#[derive(Default)]
pub(crate) struct AssignBody {
    identity: String,
}

impl Fields for AssignBody {
    const NAMES: &[&str] = &["identity"];

    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        if name != "identity" {
            return Ok(false);
        }
        self.identity = wire::or_zero(map)?;
        Ok(true)
    }
}

/// The policy is in the path, the identity in the body.
pub(crate) async fn assign_policy(on: Arc<OnAccess>, call: Call<Kes>) -> HandlerResult<Kes> {
    let name = names::policy(call.params.get("name"))?;
    let Object(body) = wire::json::<Object<AssignBody>>(&call.request.body)?;
    assign(&on, &call, name.as_str(), &body.identity).await
}

/// Both are in the path, the policy first.
pub(crate) async fn assign_identity(on: Arc<OnAccess>, call: Call<Kes>) -> HandlerResult<Kes> {
    let text = call.params.get("name");
    let (policy, identity) = text.split_once('/').unwrap_or((text, ""));
    assign(&on, &call, policy, identity).await
}

async fn assign(
    on: &OnAccess,
    call: &Call<Kes>,
    policy: &str,
    identity: &str,
) -> HandlerResult<Kes> {
    let policy = names::policy(policy)?;
    if identity.is_empty() {
        return Err(bad("identity is unknown"));
    }
    let identity = names::identity(identity)?;
    let caller = call.caller.caller()?;
    on.control.assign(caller, &policy, &identity).await?;
    Ok(wire::empty())
}

pub(crate) async fn delete_identity(on: Arc<OnAccess>, call: Call<Kes>) -> HandlerResult<Kes> {
    let identity = names::identity(call.params.get("name"))?;
    let caller = call.caller.caller()?;
    match on.control.forget(caller, &identity).await {
        Err(KmsError::IdentityNotFound(_)) if on.generation.removes_what_is_absent() => {}
        forgotten => forgotten?,
    }
    Ok(wire::empty())
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct IdentityDescribed {
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    admin: bool,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
}

impl From<KnownIdentity> for IdentityDescribed {
    fn from(known: KnownIdentity) -> Self {
        Self {
            admin: known.is_admin(),
            policy: known.policy.map(|policy| policy.to_string()),
            created_at: known.created_at.to_string(),
            created_by: known.created_by,
        }
    }
}

pub(crate) async fn describe_identity(on: Arc<OnAccess>, call: Call<Kes>) -> HandlerResult<Kes> {
    let identity = names::identity(call.params.get("name"))?;
    let caller = call.caller.caller()?;
    let known = on.identities.describe(caller, &identity).await?;
    if on.generation.is_nested() {
        return wire::ok(&IdentityPolicy::from(known));
    }
    wire::ok(&IdentityDescribed::from(known))
}

/// As v0.22 has it: the policy is a text, also of those who have none.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct IdentityPolicy {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
    policy: String,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
}

impl From<KnownIdentity> for IdentityPolicy {
    fn from(known: KnownIdentity) -> Self {
        Self {
            admin: known.is_admin(),
            policy: known
                .policy
                .map(|policy| policy.to_string())
                .unwrap_or_default(),
            created_at: known.created_at.to_string(),
            created_by: known.created_by,
        }
    }
}

/// As v0.22 has it: the rules are an object of their own.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct SelfNested<'a> {
    identity: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_name: Option<&'a str>,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<&'a str>,
    policy: InlinePolicy<'a>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct InlinePolicy<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny: Vec<&'a str>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct SelfDescribed<'a> {
    identity: &'a str,
    admin: bool,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schemars(with = "Option<BTreeMap<String, Nothing>>")
    )]
    allow: Option<Allowed<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schemars(with = "Option<BTreeMap<String, Nothing>>")
    )]
    deny: Option<Allowed<'a>>,
}

pub(crate) async fn describe_self(on: Arc<OnAccess>, call: Call<Kes>) -> HandlerResult<Kes> {
    let identity = call.caller.identity()?;
    let (known, rules) = on.identities.describe_self(identity).await?;
    if on.generation.is_nested() {
        return wire::ok(&SelfNested {
            identity: identity.as_str(),
            admin: known.is_admin(),
            policy_name: known.policy.as_ref().map(|policy| policy.as_str()),
            created_at: known.created_at.to_string(),
            created_by: known.created_by.as_deref(),
            policy: InlinePolicy {
                allow: rules.allow().collect(),
                deny: rules.deny().collect(),
            },
        });
    }
    let of_policy = |patterns: Vec<_>| (!known.is_admin()).then_some(Allowed(patterns));
    wire::ok(&SelfDescribed {
        identity: identity.as_str(),
        admin: known.is_admin(),
        created_at: known.created_at.to_string(),
        policy: known.policy.as_ref().map(|policy| policy.as_str()),
        allow: of_policy(rules.allow().collect()),
        deny: of_policy(rules.deny().collect()),
    })
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct IdentityPage {
    identities: Vec<String>,
    continue_at: String,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct IdentityLine {
    identity: String,
    #[serde(flatten)]
    described: IdentityDescribed,
}

/// As v0.17 has it, where the admin is no part of a listing.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct IdentityHolder {
    identity: String,
    policy: String,
}

pub(crate) async fn list_identities(on: Arc<OnAccess>, call: Call<Kes>) -> HandlerResult<Kes> {
    let listing = Listing::parse(call.params.get("name"))?;
    let shape = listing.shape(on.generation.identities(), &call.request.headers);
    let caller = call.caller.caller()?;
    let found = Found::<KnownIdentity>::of(&listing, shape, &on.identities, caller).await?;
    match shape {
        Shape::Page => wire::ok(&IdentityPage {
            identities: found.names(),
            continue_at: found.continue_at(&listing),
        }),
        Shape::Lines if on.generation.identity() == IdentityShape::Policy => {
            wire::lines(found.items.into_iter().filter_map(|known| {
                Some(IdentityHolder {
                    identity: known.identity.to_string(),
                    policy: known.policy?.to_string(),
                })
            }))
        }
        Shape::Lines => wire::lines(found.items.into_iter().map(|known| IdentityLine {
            identity: known.identity.to_string(),
            described: known.into(),
        })),
        // The oldest clients expect no admin here, only identities with their policies.
        Shape::Whole => wire::ok(
            &found
                .items
                .into_iter()
                .filter_map(|known| Some((known.identity.to_string(), known.policy?.to_string())))
                .collect::<BTreeMap<_, _>>(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_no_path_can_match_are_told_from_others() {
        for (pattern, matches_none) in [
            ("/v1/key/*", false),
            ("/v1/key/create/my-key", false),
            ("/v1/*/x", false),
            ("/version", false),
            ("/v*", false),
            ("/*", false),
            ("*", false),
            ("?v1/key/[a-z]*", false),
            ("[/]v1/status", false),
            ("v1/key/*", true),
            ("/v1/key/* ", true),
            (" /v1/key/*", true),
            ("/v1/key/[", true),
            ("/v2/key/*", true),
            ("/V1/key/*", true),
            ("/v1", true),
            ("key/*", true),
            ("", true),
        ] {
            assert_eq!(matches_no_path(pattern), matches_none, "{pattern:?}");
        }
    }
}
