//! KES identities and their policies. An identity is the hash of a client's public key and has at most one policy,
//! which allows and denies paths. Both are in the table; the admin is not.

mod control;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::{Caller, Grant};
use crate::cache::Cache;
use crate::error::{Fault, KmsError};
use crate::policy::Action;
use crate::ports::{Clock, Kind, Record, Revision, TableChange, TableReader};
use crate::ranges::NameRange;
use crate::repository::{Noun, if_readable, load};
use crate::scan::Scan;

pub use crate::ids::{Identity, PolicyName, is_kes_name};
pub use crate::paths::{MAX_PATTERN_BYTES, MAX_RULES, MAX_RULES_BYTES, PathRules, Rules};
pub use control::{IdentityControl, Written};

/// The record of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredPolicy {
    format: u8,
    /// Distinguishes the policy from an earlier one of its name. The holders of the earlier one do not have this one.
    generation: String,
    rules: Rules,
    created_at: Timestamp,
    created_by: String,
}

/// The record of an identity that has a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredIdentity {
    format: u8,
    policy: String,
    /// The policy's generation when it was assigned.
    generation: String,
    created_at: Timestamp,
    created_by: String,
}

impl Noun for StoredPolicy {
    const KIND: Kind = Kind::Policy;
}

impl Noun for StoredIdentity {
    const KIND: Kind = Kind::Identity;
}

/// A KES policy.
#[derive(Debug, Clone)]
pub struct PathPolicy {
    pub name: PolicyName,
    /// Its rules.
    pub rules: Rules,
    /// When it was made or last written.
    pub created_at: Timestamp,
    /// The principal that made it or wrote it last.
    pub created_by: String,
}

/// An identity with a policy, or the admin.
#[derive(Debug, Clone)]
pub struct KnownIdentity {
    pub identity: Identity,
    /// Its policy; `None` for the admin, who needs none.
    pub policy: Option<PolicyName>,
    /// Since when it has the policy; for the admin, since this process started.
    pub created_at: Timestamp,
    /// The principal that assigned the policy.
    pub created_by: Option<String>,
}

impl KnownIdentity {
    pub const fn is_admin(&self) -> bool {
        self.policy.is_none()
    }
}

/// A page of named items.
#[derive(Debug, Clone)]
pub struct NamesPage<T> {
    /// In the byte order of their names.
    pub items: Vec<T>,
    /// Whether more follow.
    pub more: bool,
}

/// Which names to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct NameQuery<'a> {
    /// Only names that begin with this.
    pub prefix: &'a str,
    /// Only names that sort after this.
    pub after: Option<&'a str>,
    /// The most items of the page.
    pub limit: usize,
}

struct CachedPolicy {
    stored: StoredPolicy,
    rules: Arc<PathRules>,
}

/// Finds an identity's permissions. Only reads the table.
pub struct Identities {
    table: Arc<dyn TableReader>,
    clock: Arc<dyn Clock>,
    state_ttl: Duration,
    admin: Option<Identity>,
    serving_since: Timestamp,
    nothing: Arc<PathRules>,
    identities: Cache<Identity, StoredIdentity>,
    policies: Cache<PolicyName, CachedPolicy>,
}

const CACHED_IDENTITIES: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
const CACHED_POLICIES: NonZeroUsize = NonZeroUsize::new(128).unwrap();
const PAGE: usize = 1000;

impl Identities {
    /// `admin`: the identity that may do everything, from the deployment's settings; `None` for no admin. `state_ttl`:
    /// how long a change by another instance may not be in effect here.
    pub fn new(
        table: Arc<dyn TableReader>,
        clock: Arc<dyn Clock>,
        state_ttl: Duration,
        admin: Option<Identity>,
    ) -> Self {
        let serving_since = clock.now();
        Self {
            table,
            clock,
            state_ttl,
            admin,
            serving_since,
            nothing: Arc::new(PathRules::none()),
            identities: Cache::new(CACHED_IDENTITIES),
            policies: Cache::new(CACHED_POLICIES),
        }
    }

    /// Drops the cached identity or policy that another process may have changed.
    pub fn obey_change(&self, change: &TableChange) {
        match change {
            TableChange::Record(Kind::Identity, id) => {
                if let Ok(identity) = Identity::parse(id) {
                    self.identities.forget(&identity);
                }
            }
            TableChange::Record(Kind::Policy, name) => {
                if let Ok(name) = PolicyName::parse(name) {
                    self.policies.forget(&name);
                }
            }
            TableChange::Record(..) => {}
            TableChange::Any => {
                self.identities.clear();
                self.policies.clear();
            }
        }
    }

    pub fn is_admin(&self, identity: &Identity) -> bool {
        self.admin.as_ref() == Some(identity)
    }

    /// The caller with this authenticated identity. An unknown identity may call nothing.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn caller(&self, identity: &Identity) -> Result<Caller, KmsError> {
        let principal = identity.shared();
        let grant = if self.is_admin(identity) {
            Grant::Owner
        } else {
            match self.assigned(identity).await? {
                Some((_, policy)) => Grant::Paths(Arc::clone(&policy.rules)),
                // Anyone can make a certificate, so the caller is unauthenticated.
                None => {
                    let nothing = Grant::Paths(Arc::clone(&self.nothing));
                    return Ok(Caller::unauthenticated(principal, Arc::new(nothing)));
                }
            }
        };
        Ok(Caller::new(principal, Arc::new(grant)))
    }

    /// The identity and its policy's rules (empty for the admin). Every identity may read this of itself.
    ///
    /// # Errors
    /// [`KmsError::IdentityNotFound`], or the table failed.
    pub async fn describe_self(
        &self,
        identity: &Identity,
    ) -> Result<(KnownIdentity, Rules), KmsError> {
        if self.is_admin(identity) {
            return Ok((self.the_admin(identity), Rules::default()));
        }
        let (stored, policy) = self
            .assigned(identity)
            .await?
            .ok_or_else(unknown(identity))?;
        Ok((known(identity, &stored)?, policy.stored.rules.clone()))
    }

    /// The identity's policy and dates.
    ///
    /// # Errors
    /// [`KmsError::IdentityNotFound`], or the table failed.
    pub async fn describe(
        &self,
        caller: &Caller,
        identity: &Identity,
    ) -> Result<KnownIdentity, KmsError> {
        caller.may_on_name(Action::ReadAccess, identity.as_str())?;
        if self.is_admin(identity) {
            return Ok(self.the_admin(identity));
        }
        let (stored, _) = self.read(identity).await?.ok_or_else(unknown(identity))?;
        known(identity, &stored)
    }

    /// The known identities, including the admin.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn list(
        &self,
        caller: &Caller,
        query: NameQuery<'_>,
    ) -> Result<NamesPage<KnownIdentity>, KmsError> {
        caller.may_ever(Action::ReadAccess)?;
        let mut page = self
            .page::<StoredIdentity, _>(query, |record, stored| {
                known(&Identity::kept(&record.id), &stored)
            })
            .await?;
        if let Some(admin) = &self.admin {
            let place = page.items.partition_point(|known| known.identity < *admin);
            // If more identities follow, the admin may belong on a later page.
            let is_here = place < page.items.len() || !page.more;
            let is_there = page
                .items
                .get(place)
                .is_some_and(|known| known.identity == *admin);
            let is_asked_for = admin.as_str().starts_with(query.prefix)
                && query.after.is_none_or(|after| admin.as_str() > after);
            if is_here && is_asked_for {
                if is_there {
                    page.items.remove(place);
                }
                page.items.insert(place, self.the_admin(admin));
                if page.items.len() > query.limit.clamp(1, PAGE) {
                    page.items.pop();
                    page.more = true;
                }
            }
        }
        Ok(page)
    }

    /// The policy.
    ///
    /// # Errors
    /// [`KmsError::PolicyNotFound`], or the table failed.
    pub async fn policy(&self, caller: &Caller, name: &PolicyName) -> Result<PathPolicy, KmsError> {
        caller.may_on_name(Action::ReadAccess, name.as_str())?;
        let (stored, _) = self
            .read_policy(name)
            .await?
            .ok_or_else(|| KmsError::PolicyNotFound(name.to_string()))?;
        Ok(policy(name, stored))
    }

    /// The policies.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn list_policies(
        &self,
        caller: &Caller,
        query: NameQuery<'_>,
    ) -> Result<NamesPage<PathPolicy>, KmsError> {
        caller.may_ever(Action::ReadAccess)?;
        self.page::<StoredPolicy, _>(query, |record, stored| {
            Ok(policy(&PolicyName::kept(&record.id), stored))
        })
        .await
    }

    async fn page<T: Noun, I>(
        &self,
        query: NameQuery<'_>,
        told: impl Fn(&Record, T) -> Result<I, KmsError> + Send,
    ) -> Result<NamesPage<I>, KmsError> {
        let limit = query.limit.clamp(1, PAGE);
        let (table, all) = (self.table.as_ref(), NameRange::all());
        let after = query.after.map(str::to_owned);
        let mut scan = Scan::within(table, T::KIND, all, query.prefix, after);
        let mut items = Vec::new();
        let readable = |record: &Record| {
            let read = T::of(record).and_then(|stored| told(record, stored));
            if_readable(record, read)
        };
        // The next page continues after the last item, so records that are left out must not shorten a page.
        while items.len() < limit
            && let Some(page) = scan.page(limit.saturating_sub(items.len())).await?
        {
            items.extend(page.records.iter().filter_map(readable));
        }
        Ok(NamesPage {
            items,
            more: scan.has_more(),
        })
    }

    fn the_admin(&self, identity: &Identity) -> KnownIdentity {
        KnownIdentity {
            identity: identity.clone(),
            policy: None,
            created_at: self.serving_since,
            created_by: None,
        }
    }

    /// The identity and its policy, each at most the state TTL old. `None` if there is no policy any more.
    async fn assigned(
        &self,
        identity: &Identity,
    ) -> Result<Option<(Arc<StoredIdentity>, Arc<CachedPolicy>)>, KmsError> {
        let Some(stored) = self.cached(identity).await? else {
            return Ok(None);
        };
        let policy = self
            .cached_policy(&PolicyName::kept(&stored.policy))
            .await?;
        Ok(policy
            .filter(|policy| policy.stored.generation == stored.generation)
            .map(|policy| (stored, policy)))
    }

    async fn cached(&self, identity: &Identity) -> Result<Option<Arc<StoredIdentity>>, KmsError> {
        let now = self.clock.monotonic();
        if let Some(stored) = self.identities.get(identity, now, self.state_ttl) {
            return Ok(Some(stored));
        }
        let ticket = self.identities.begin(now);
        let Some((stored, _)) = self.read(identity).await? else {
            return Ok(None);
        };
        let stored = Arc::new(stored);
        self.identities.insert(
            ticket,
            identity.clone(),
            Arc::clone(&stored),
            self.state_ttl,
        );
        Ok(Some(stored))
    }

    async fn cached_policy(
        &self,
        name: &PolicyName,
    ) -> Result<Option<Arc<CachedPolicy>>, KmsError> {
        let now = self.clock.monotonic();
        if let Some(policy) = self.policies.get(name, now, self.state_ttl) {
            return Ok(Some(policy));
        }
        let ticket = self.policies.begin(now);
        let Some((stored, _)) = self.read_policy(name).await? else {
            return Ok(None);
        };
        let policy = Arc::new(CachedPolicy {
            rules: Arc::new(PathRules::compile(stored.rules.clone())),
            stored,
        });
        self.policies
            .insert(ticket, name.clone(), Arc::clone(&policy), self.state_ttl);
        Ok(Some(policy))
    }

    async fn read(
        &self,
        identity: &Identity,
    ) -> Result<Option<(StoredIdentity, Revision)>, KmsError> {
        load(self.table.as_ref(), identity.as_str()).await
    }

    async fn read_policy(
        &self,
        name: &PolicyName,
    ) -> Result<Option<(StoredPolicy, Revision)>, KmsError> {
        load(self.table.as_ref(), name.as_str()).await
    }
}

fn unknown(identity: &Identity) -> impl FnOnce() -> KmsError {
    || KmsError::IdentityNotFound(identity.to_string())
}

fn known(identity: &Identity, stored: &StoredIdentity) -> Result<KnownIdentity, KmsError> {
    let policy = PolicyName::parse(&stored.policy)
        .map_err(|_| Fault::plain("an identity's record names no policy"))?;
    Ok(KnownIdentity {
        identity: identity.clone(),
        policy: Some(policy),
        created_at: stored.created_at,
        created_by: Some(stored.created_by.clone()),
    })
}

fn policy(name: &PolicyName, stored: StoredPolicy) -> PathPolicy {
    PathPolicy {
        name: name.clone(),
        rules: stored.rules,
        created_at: stored.created_at,
        created_by: stored.created_by,
    }
}
