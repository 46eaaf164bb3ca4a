//! The fields of KES's configuration that are taken over, with the names of all generations of KES. [`super::fields`]
//! lists the others.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Default, Deserialize)]
pub(super) struct File {
    /// The first generation's name of `admin.identity`.
    pub(super) root: Option<String>,
    /// Only in later generations.
    pub(super) admin: Option<Admin>,
    pub(super) policy: Option<BTreeMap<String, Option<Policy>>>,
    pub(super) api: Option<BTreeMap<String, Option<Api>>>,
    pub(super) keys: Option<Keys>,
    pub(super) tls: Option<Tls>,
}

#[derive(Deserialize)]
pub(super) struct Admin {
    pub(super) identity: Option<String>,
}

#[derive(Default, Deserialize)]
pub(super) struct Policy {
    /// The first generation's name of `allow`.
    pub(super) paths: Option<Vec<String>>,
    pub(super) allow: Option<Vec<String>>,
    pub(super) deny: Option<Vec<String>>,
    pub(super) identities: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(super) struct Api {
    pub(super) skip_auth: Option<bool>,
}

/// The keys to make, or up to v0.18 the key store.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Keys {
    ToMake(Vec<Key>),
    Store(IgnoredAny),
}

#[derive(Deserialize)]
pub(super) struct Key {
    pub(super) name: String,
}

#[derive(Default, Deserialize)]
pub(super) struct Tls {
    pub(super) proxy: Option<Proxy>,
}

#[derive(Default, Deserialize)]
pub(super) struct Proxy {
    pub(super) identities: Option<Vec<String>>,
    pub(super) header: Option<Header>,
}

#[derive(Default, Deserialize)]
pub(super) struct Header {
    pub(super) cert: Option<String>,
}
