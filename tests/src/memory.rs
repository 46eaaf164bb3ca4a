use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use keyway_deployment_assembly::{Proof, Settings, Writing};
use keyway_dialect_kes::{About, Memory, OpenPaths, Operations, Unidentified};
use keyway_dialect_rustfs::{PREFIXES, RustFs, datakey_routes, key_routes, service_routes};
use keyway_domain::access::{AccessKeyId, AccessKeys, RootAccessKey};
use keyway_domain::identity::Identity;
use keyway_domain::keyring::{KeyWrapper, RootKeyring};
use keyway_domain::keys::{Deletion, KeyId};
use keyway_domain::policy::Policy;
use keyway_domain::ports::{Clock, Kind, Random, Record, TableReader as _};
use keyway_domain::service::Service;
use keyway_http::{Cors, Mount, Peer, Request, Site};
use keyway_testkit::{
    FixedClock, MemorySecrets, MemoryTable, MemoryVault, MemoryVaults, SeededRandom,
};

use crate::{Answer, Signer};

/// Every route over memory, with a clock that stands and a generator that is seeded.
pub struct MemorySite {
    /// The clock, to be set.
    pub clock: Arc<FixedClock>,
    table: Arc<MemoryTable>,
    wrapper: Arc<dyn KeyWrapper>,
    random: Arc<dyn Random>,
    service: Arc<Service>,
    site: Arc<Site>,
    kes: Arc<Site>,
    kes_routes: Vec<(String, String)>,
    vault: Arc<MemoryVault>,
    /// In the order of the groups below.
    routes: Vec<(String, String)>,
    /// How many routes each function mounts.
    counts: Vec<(&'static str, usize)>,
    root: Signer,
}

const HOST: &str = "keyway.test";
/// Who may do everything in KES's dialect.
pub const KES_ADMIN: &str = "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22";
const LOOPBACK: Peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), false);

impl MemorySite {
    /// A site whose service runs.
    pub async fn running() -> Self {
        Self::running_with(None, false).await
    }

    /// A site whose service runs with a default key and perhaps the opt-in to immediate deletion.
    pub async fn running_with(default_key_id: Option<&str>, immediate_deletion: bool) -> Self {
        let site = Self::not_configured(immediate_deletion).await;
        let default_key_id = default_key_id.map(|id| KeyId::parse("key_id", id).expect("a key id"));
        site.service
            .start_if_new(site.table.as_ref(), site.random.as_ref(), default_key_id)
            .await
            .expect("memory does not fail");
        site
    }

    /// A site whose service was never configured.
    pub async fn not_configured(immediate_deletion: bool) -> Self {
        Self::build(immediate_deletion, Cors::Off, Deletion::Immediate, "").await
    }

    /// A site whose service runs with a default key, and whose KES dialect deletes so and has these paths open.
    pub async fn with_kes(default_key_id: &str, deletion: Deletion, open: &str) -> Self {
        let site = Self::build(false, Cors::Off, deletion, open).await;
        let default_key_id = KeyId::parse("key_id", default_key_id).expect("a key id");
        site.service
            .start_if_new(
                site.table.as_ref(),
                site.random.as_ref(),
                Some(default_key_id),
            )
            .await
            .expect("memory does not fail");
        site
    }

    /// A site whose service was never configured, and that pages of these origins may call.
    pub async fn with_cors(cors: Cors) -> Self {
        Self::build(false, cors, Deletion::Immediate, "").await
    }

    async fn build(immediate_deletion: bool, cors: Cors, deletion: Deletion, open: &str) -> Self {
        let clock = Arc::new(FixedClock::new(
            "2026-01-02T03:04:05.678901234Z".parse().expect("a date"),
        ));
        let port: Arc<dyn Clock> = clock.clone();
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
        let table = Arc::new(MemoryTable::new(port.clone()));
        let keyring = RootKeyring::establish(
            table.as_ref(),
            &MemorySecrets::new(),
            port.as_ref(),
            random.clone(),
        )
        .await;
        let Ok(keyring) = keyring else {
            panic!("memory does not fail")
        };
        let wrapper: Arc<dyn KeyWrapper> = Arc::new(keyring);
        let root_id = AccessKeyId::parse("root").expect("an id");
        let root = RootAccessKey::Given(root_id, b"root-secret".to_vec().into());
        let settings = Settings {
            region: None,
            state_ttl_seconds: 5,
            allow_immediate_deletion: immediate_deletion,
            cors_origins: Cors::Off,
        };
        let vault = Arc::new(MemoryVault::new(9));
        let ports = Writing {
            table: table.clone(),
            wrapper: wrapper.clone(),
            vaults: Arc::new(MemoryVaults::new(vault.clone())),
            folder: None,
            clock: port,
            random: random.clone(),
        };
        let server = ports.reading().server(&settings, Proof::Signature(root));
        let keys = ports.keys(&server, &settings);
        let admin = Identity::parse(KES_ADMIN).expect("an identity");
        let identities = ports.reading().identities(&settings, Some(admin));
        let kes = keyway_dialect_kes::mount(
            identity_of,
            &Operations {
                keys: keys.clone(),
                data_keys: server.data_keys.clone(),
                service: server.service.clone(),
                control: ports.identity_control(&identities),
                identities,
                clock: ports.clock.clone(),
            },
            &keyway_dialect_kes::Settings {
                deletion,
                open: OpenPaths::parse(open).expect("paths"),
                about: About {
                    version: "1.2.3",
                    commit: "0123456789abcdef0123456789abcdef01234567",
                    os: "linux",
                    arch: About::go_arch("x86_64"),
                    cpus: 2,
                    cpus_used: 2,
                    memory: || Memory {
                        heap: 4_960_704,
                        stack: 1_081_344,
                    },
                },
            },
        )
        .expect("routes");
        let kes_routes = kes
            .routes()
            .iter()
            .map(|route| (route.method.to_string(), route.path.to_owned()))
            .collect();
        let groups = [
            ("keys", key_routes(&keys)),
            ("datakey", datakey_routes(&server.data_keys)),
            ("service", service_routes(&ports.control(&server))),
        ];
        let (service, authenticator) = (server.service, server.authenticator);
        let mut routes = Vec::new();
        let mut counts = Vec::new();
        for (name, group) in groups {
            counts.push((name, group.len()));
            routes.extend(group);
        }
        let mount =
            Mount::new(RustFs::new(authenticator), PREFIXES.to_vec(), routes).expect("routes");
        let routes = mount
            .routes()
            .iter()
            .map(|route| (route.method.to_string(), route.path.to_owned()))
            .collect();
        let root = Signer::new("root", "root-secret");
        Self {
            clock,
            table,
            wrapper,
            random,
            service,
            site: Arc::new(Site::new(7, mount).with_cors(cors)),
            kes: Arc::new(Site::new(8, kes)),
            kes_routes,
            routes,
            counts,
            vault,
            root,
        }
    }

    /// Method and path of every route of KES's dialect.
    pub fn kes_routes(&self) -> &[(String, String)] {
        &self.kes_routes
    }

    /// Calls KES's dialect as its admin.
    pub async fn kes(&self, method: &str, path: &str, body: &str) -> Answer {
        self.kes_as(Some(KES_ADMIN), method, path, &[], body).await
    }

    /// Calls KES's dialect as this identity, or without a certificate.
    pub async fn kes_as(
        &self,
        identity: Option<&str>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let body: keyway_http::Body = Box::pin(body.map_err(|never| match never {}));
        let peer = Peer {
            client_certificate: identity.map(str::to_owned),
            ..Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), true)
        };
        let request = request.body(body).expect("a request");
        self.kes.respond(request, peer).await.into()
    }

    /// What answers.
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site)
    }

    /// Method and path (below the prefix) of every route.
    pub fn routes(&self) -> &[(String, String)] {
        &self.routes
    }

    /// Those of [`Self::routes`] that the function of this name mounts.
    pub fn routes_of(&self, function: &str) -> &[(String, String)] {
        let mut first = 0;
        for (name, count) in &self.counts {
            if *name == function {
                return &self.routes[first..first + count];
            }
            first += count;
        }
        panic!("there is no function {function}")
    }

    /// The Vault that it reaches, whatever it is told.
    pub fn vault(&self) -> &MemoryVault {
        &self.vault
    }

    /// Who may do everything.
    pub fn root(&self) -> &Signer {
        &self.root
    }

    /// A signer with an access key of this policy.
    pub async fn signer(&self, policy: &str) -> Signer {
        let keys = AccessKeys::new(
            self.table.clone(),
            self.wrapper.clone(),
            self.clock.clone(),
            self.random.clone(),
        );
        let policy =
            Policy::canned(policy).unwrap_or_else(|| Policy::parse(policy).expect("a policy"));
        let key = keys
            .create(policy, None)
            .await
            .expect("memory does not fail");
        Signer::new(
            key.id.as_str(),
            std::str::from_utf8(key.secret.expose()).expect("ASCII"),
        )
    }

    /// Every record of a kind, to compare before and after.
    pub async fn records(&self, kind: Kind) -> Vec<Record> {
        self.table
            .page(kind, "", None, 1000)
            .await
            .expect("memory does not fail")
            .records
    }

    /// Calls as root; `path` is below the prefix.
    pub async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.call_as(&self.root, method, path, body).await
    }

    /// Calls as somebody; `path` is below the prefix.
    pub async fn call_as(&self, signer: &Signer, method: &str, path: &str, body: &str) -> Answer {
        let path = format!("/rustfs/admin/v3{path}");
        let time = SystemTime::from(self.clock.now());
        self.send(signer.request(method, HOST, &path, body.as_bytes(), time))
            .await
    }

    /// Calls with no signature at all.
    pub async fn call_unsigned(&self, method: &str, path: &str, body: &str) -> Answer {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("/rustfs/admin/v3{path}"))
            .header("host", HOST)
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .expect("a request");
        self.send(request).await
    }

    /// Sends a request as it is, from loopback.
    pub async fn send(&self, request: http::Request<Bytes>) -> Answer {
        self.send_from(request, LOOPBACK).await
    }

    /// Sends a request as it is, from this peer.
    pub async fn send_from(&self, request: http::Request<Bytes>, peer: Peer) -> Answer {
        let request = request.map(|body| -> keyway_http::Body {
            Box::pin(Full::new(body).map_err(|never| match never {}))
        });
        self.site.respond(request, peer).await.into()
    }

    /// A request signed by root that declares its payload in `x-amz-content-sha256`.
    pub fn declared_request(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        declared: &str,
    ) -> http::Request<Bytes> {
        let time = SystemTime::from(self.clock.now());
        self.root
            .declared_request(method, HOST, path, body, Some(declared), time)
    }

    /// A request signed by root for this path and query.
    pub fn root_request(&self, method: &str, path: &str, body: &[u8]) -> http::Request<Bytes> {
        self.root
            .request(method, HOST, path, body, SystemTime::from(self.clock.now()))
    }
}

/// Stands in for what reads certificates: here a certificate is its identity.
fn identity_of(request: &Request) -> Result<Option<Identity>, Unidentified> {
    match request.peer.client_certificate.as_deref() {
        None => Ok(None),
        Some("plain") => Err(Unidentified::NotEncrypted),
        Some("several") => Err(Unidentified::Several),
        Some(text) => Identity::parse(text)
            .map(Some)
            .map_err(|_| Unidentified::Unfit),
    }
}
