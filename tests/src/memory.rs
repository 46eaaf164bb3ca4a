use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http_body_util::{BodyExt, Full};
use keyway_audit::{
    AuditTable, AuditWriter, AuditWriterSettings, Contexts, Flushing, Following, Strictness,
};
use keyway_auth::certificate::{TrustedProxy, Unidentified};
use keyway_deployment_assembly::{
    AuditSettings, AwsCiphertext, KesSettings, OnDelete, Process, Proof, Services, Settings,
    Writing,
};
use keyway_dialect_kes::{Generation, IdentityOf, Kes, OpenPaths, Proven};
use keyway_domain::access::{AccessKeyId, AccessKeys, Envelope, RootAccessKey, WantedAccessKey};
use keyway_domain::audit::LogFollowing;
use keyway_domain::identity::Identity;
use keyway_domain::janitor::{Janitor, Swept};
use keyway_domain::keyring::KeyWrapper;
use keyway_domain::keys::{Deletion, KeyId, Keys};
use keyway_domain::machine::Machine;
use keyway_domain::policy::Policy;
use keyway_domain::ports::{Clock, Kind, Random, Record, TableReader as _};
use keyway_domain::records::SignedTable;
use keyway_domain::service::Service;
use keyway_http::{ClientCertificate, Cors, Mount, Peer, Request, Site, Tail};
use keyway_sites::{Composition, Mounts};
use keyway_testkit::{
    FixedClock, FixedMachine, MemorySecrets, MemoryTable, MemoryVault, MemoryVaults, SeededRandom,
    signed_table,
};
use serde_json::Value;

use tokio::sync::broadcast;

use crate::{Answer, Described, Signer, openapi};

/// Every route over memory, with a fixed clock and a seeded generator.
pub struct MemorySite {
    /// The clock, to be set.
    pub clock: Arc<FixedClock>,
    table: Arc<SignedTable<MemoryTable>>,
    stored: Arc<MemoryTable>,
    wrapper: Arc<dyn KeyWrapper>,
    random: Arc<dyn Random>,
    service: Arc<Service>,
    site: Arc<Site>,
    kes: Arc<Site>,
    keys: Arc<Keys>,
    janitor: Janitor,
    vault: Arc<MemoryVault>,
    mounted: Vec<(&'static str, String, String)>,
    root: Signer,
    openapi: &'static Result<String, Vec<String>>,
    audited: Audited,
    of_errors: broadcast::Sender<Arc<str>>,
}

/// The audit log's standard output.
#[derive(Clone, Default)]
struct Audited {
    text: Arc<Mutex<Vec<u8>>>,
    fails: Arc<AtomicBool>,
}

impl Write for Audited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.text
            .lock()
            .expect("nobody panicked")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const HOST: &str = "keyway.test";
/// The identity that may do everything in KES's dialect.
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
        Self::started(site, default_key_id).await
    }

    /// A site whose service was never configured.
    pub async fn not_configured(immediate_deletion: bool) -> Self {
        let kes = KesOptions::default();
        Self::build(immediate_deletion, Cors::Off, kes).await
    }

    /// A site whose service runs with settings that `change` has changed.
    pub async fn running_as(change: impl FnOnce(&mut Settings)) -> Self {
        let kes = KesOptions::default();
        let mut settings = settings(false, kes.admin.clone(), kes.deletion);
        change(&mut settings);
        Self::started(Self::build_as(settings, Cors::Off, kes).await, None).await
    }

    /// A site whose service runs with a default key. Its KES dialect deletes keys this way and opens these paths.
    pub async fn with_kes(default_key_id: &str, deletion: Deletion, open: &str) -> Self {
        let kes = KesOptions {
            deletion,
            open: OpenPaths::parse(open).expect("paths"),
            ..KesOptions::default()
        };
        Self::running_kes(default_key_id, kes).await
    }

    /// A site whose service runs, and whose KES dialect answers as this release of KES.
    pub async fn with_generation(generation: Generation) -> Self {
        let kes = KesOptions {
            generation,
            ..KesOptions::default()
        };
        Self::running_kes("default", kes).await
    }

    /// A site whose service runs, and whose KES dialect identifies callers by real certificates, also by those that
    /// this trusted proxy passes on.
    pub async fn with_certificates(proxy: Option<TrustedProxy>, admin: &str) -> Self {
        let proven = Proven::new(proxy);
        let kes = KesOptions {
            admin: Identity::parse(admin).expect("an identity"),
            identify: Box::new(move |request| proven.identity(request)),
            ..KesOptions::default()
        };
        Self::running_kes("default", kes).await
    }

    async fn running_kes(default_key_id: &str, kes: KesOptions) -> Self {
        let site = Self::build(false, Cors::Off, kes).await;
        Self::started(site, Some(default_key_id)).await
    }

    async fn started(site: Self, default_key_id: Option<&str>) -> Self {
        let default_key_id = default_key_id.map(|id| KeyId::parse("key_id", id).expect("a key id"));
        site.service
            .start_if_new(site.table.as_ref(), site.random.as_ref(), default_key_id)
            .await
            .expect("memory does not fail");
        site
    }

    /// A site whose service was never configured, and that pages of these origins may call.
    pub async fn with_cors(cors: Cors) -> Self {
        Self::build(false, cors, KesOptions::default()).await
    }

    async fn build(immediate_deletion: bool, cors: Cors, kes: KesOptions) -> Self {
        let settings = settings(immediate_deletion, kes.admin.clone(), kes.deletion);
        Self::build_as(settings, cors, kes).await
    }

    async fn build_as(settings: Settings, cors: Cors, kes: KesOptions) -> Self {
        let clock = Arc::new(FixedClock::new(
            "2026-01-02T03:04:05.678901234Z".parse().expect("a date"),
        ));
        let port: Arc<dyn Clock> = clock.clone();
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
        let stored = Arc::new(MemoryTable::new(port.clone()));
        let secrets = Arc::new(MemorySecrets::new());
        let Ok((table, keyring)) = signed_table(&stored, secrets, &port, &random).await else {
            panic!("memory does not fail")
        };
        let wrapper: Arc<dyn KeyWrapper> = keyring.clone();
        let vault = Arc::new(MemoryVault::new(9));
        let ports = Writing {
            table: table.clone(),
            stored: stored.clone(),
            keyring,
            wrapper: wrapper.clone(),
            vaults: Arc::new(MemoryVaults::new(vault.clone())),
            folder: None,
            changes: None,
            clock: port,
            random: random.clone(),
        };
        let (ports, table_health) = ports.watched();
        let root_id = AccessKeyId::parse("root").expect("an id");
        let root = RootAccessKey::Given(root_id, b"root-secret".to_vec().into());
        let server = ports.reading().server(&settings, Proof::Signature(root));
        let keys = ports.keys(&server, &settings);
        let audited = Audited::default();
        let audit_writer = Arc::new(audit_writer(&ports, &audited));
        server.service.check_also(audit_writer.clone());
        server.service.check_also(table_health);
        let janitor = Janitor::new(
            table.clone(),
            Arc::clone(&server.service),
            ports.wrappers(),
            ports.clock.clone(),
            // Like the audit writer, it has its own generator: it does not change the site's random bytes.
            Arc::new(SeededRandom::new(3)),
            Some(audit_writer.clone()),
        );
        let (of_errors, _) = broadcast::channel(16);
        let following = following(&audit_writer, &ports, &of_errors);
        let identify = kes.identify;
        let dialect = Kes::new(
            move |request: &Request| identify(request),
            Arc::clone(&server.identities),
            kes.open,
            kes.generation,
        );
        let mut mounts = mounts(&server, &ports, &settings, &keys, dialect, &following);
        // The document is the same for every site, so it is made once.
        static OPENAPI: OnceLock<Result<String, Vec<String>>> = OnceLock::new();
        let openapi = OPENAPI.get_or_init(|| openapi::made(&mounts));
        let mounted = openapi::mounted(&mounts);
        let of_kes = mounts.kes.take().expect("KES's API").into_mount();
        let site = mounts.site(7).expect("routes").with_cors(cors);
        let root = Signer::new("root", "root-secret");
        let observed =
            |site: Site| site.observed_by(audit_writer.clone(), audit_writer.stopwatch());
        Self {
            janitor,
            audited,
            of_errors,
            clock,
            table,
            stored,
            wrapper,
            random,
            site: Arc::new(observed(site)),
            kes: Arc::new(observed(with_pages(of_kes, &server))),
            service: server.service,
            keys,
            mounted,
            vault,
            root,
            openapi,
        }
    }

    /// The operations behind the routes of master keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Dialect, method and path of every route that is mounted, below each prefix.
    pub fn mounted(&self) -> &[(&'static str, String, String)] {
        &self.mounted
    }

    /// Calls KES's dialect as its admin.
    pub async fn kes(&self, method: &str, path: &str, body: &str) -> Answer {
        self.kes_as(Some(KES_ADMIN), method, path, &[], body).await
    }

    /// Calls KES's dialect as this identity, or without a certificate. The answer must be one that is described.
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
        let request = request.body(Bytes::copy_from_slice(body.as_bytes()));
        let asked = request.expect("a request");
        let peer = Peer {
            client_certificate: identity
                .filter(|it| *it != "plain")
                .map(|it| ClientCertificate::Pem(it.into())),
            ..Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), identity != Some("plain"))
        };
        let request = asked.clone().map(|body| -> keyway_http::Body {
            Box::pin(Full::new(body).map_err(|never| match never {}))
        });
        let answer = self.kes.respond(request, peer).await.into();
        if let Err(said) = Described::committed().check_kes(&asked, &answer) {
            panic!("{said}");
        }
        answer
    }

    /// The site that answers KES's dialect.
    pub fn kes_site(&self) -> Arc<Site> {
        Arc::clone(&self.kes)
    }

    /// Calls KES's dialect as its admin, for a streamed answer; returns its status and body.
    pub async fn kes_stream(&self, path: &str) -> (u16, Option<BoxStream<'static, Bytes>>) {
        let body = Full::new(Bytes::new());
        let body: keyway_http::Body = Box::pin(body.map_err(|never| match never {}));
        let peer = Peer {
            client_certificate: Some(ClientCertificate::Pem(KES_ADMIN.into())),
            ..Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), true)
        };
        let request = http::Request::get(path).body(body).expect("a request");
        let mut response = self.kes.respond(request, peer).await;
        let tail = response.extensions_mut().remove::<Tail>();
        (
            response.status().as_u16(),
            tail.and_then(|tail| tail.take()),
        )
    }

    /// Adds an error to the error log.
    pub fn log_error(&self, text: &str) {
        // There may be no follower.
        self.of_errors.send(text.into()).ok();
    }

    /// The table, for writes that bypass the site.
    pub fn table(&self) -> Arc<SignedTable<MemoryTable>> {
        Arc::clone(&self.table)
    }

    /// Runs the janitor over every key.
    pub async fn sweep(&self) -> Swept {
        let swept = self.janitor.sweep().await;
        swept.expect("memory does not fail")
    }

    /// Makes writes to standard output fail, or succeed again.
    pub fn fail_output(&self, fails: bool) {
        self.audited.fails.store(fails, Ordering::Relaxed);
    }

    /// Makes writes to the table fail, or succeed again.
    pub fn fail_table(&self, fails: bool) {
        self.stored.fail_writes(fails);
    }

    /// Makes the table unavailable, or available again.
    pub fn set_table_away(&self, away: bool) {
        self.stored.set_away(away);
    }

    /// Makes calls to the table hang, or return again.
    pub fn set_table_hanging(&self, hangs: bool) {
        self.stored.set_hanging(hangs);
    }

    /// Every event of the audit log so far.
    pub fn audited(&self) -> Vec<Value> {
        let text = self.audited.text.lock().expect("nobody panicked");
        let lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).expect("an event"))
            .collect()
    }

    /// The site of every dialect but KES's.
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site)
    }

    /// The OpenAPI document of the mounts, or what it lacks.
    pub fn openapi(&self) -> Result<&str, &[String]> {
        self.openapi.as_deref().map_err(Vec::as_slice)
    }

    /// The Vault that it reaches at every address.
    pub fn vault(&self) -> &MemoryVault {
        &self.vault
    }

    /// The signer of the root access key.
    pub fn root(&self) -> &Signer {
        &self.root
    }

    /// The operator's side of access keys.
    pub fn access_keys(&self) -> AccessKeys {
        AccessKeys::new(
            self.table.clone(),
            self.wrapper.clone(),
            self.clock.clone(),
            self.random.clone(),
        )
    }

    /// A signer with an access key of this policy.
    pub async fn signer(&self, policy: &str) -> Signer {
        self.signer_for(policy, None).await
    }

    /// A signer with an access key of this policy, which expires after `life`.
    pub async fn signer_for(&self, policy: &str, life: Option<Duration>) -> Signer {
        self.signer_with(policy, life, None).await
    }

    /// As [`MemorySite::signer_for`], with this envelope.
    pub async fn signer_with(
        &self,
        policy: &str,
        life: Option<Duration>,
        envelope: Option<Envelope>,
    ) -> Signer {
        let keys = self.access_keys();
        let policy =
            Policy::canned(policy).unwrap_or_else(|| Policy::parse(policy).expect("a policy"));
        let key = keys
            .create_with(WantedAccessKey {
                life,
                envelope,
                ..WantedAccessKey::new(policy)
            })
            .await
            .expect("memory does not fail");
        let text = |secret: &keyway_domain::SecretBytes| {
            String::from_utf8(secret.expose().to_vec()).expect("ASCII")
        };
        let signer = Signer::new(key.id.as_str(), &text(&key.secret));
        match &key.session_token {
            Some(token) => signer.with_token(&text(token)),
            None => signer,
        }
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

    /// Calls as this signer; `path` is below the prefix.
    pub async fn call_as(&self, signer: &Signer, method: &str, path: &str, body: &str) -> Answer {
        self.call_at(signer, method, &format!("/rustfs/admin/v3{path}"), body)
            .await
    }

    /// Calls as this signer; `path` is the whole path.
    pub async fn call_at(&self, signer: &Signer, method: &str, path: &str, body: &str) -> Answer {
        let time = SystemTime::from(self.clock.now());
        self.send(signer.request(method, HOST, path, body.as_bytes(), time))
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

    /// Sends a request as it is, from this peer. The answer must be one that is described.
    pub async fn send_from(&self, request: http::Request<Bytes>, peer: Peer) -> Answer {
        let asked = request.clone();
        let request = request.map(|body| -> keyway_http::Body {
            Box::pin(Full::new(body).map_err(|never| match never {}))
        });
        let answer = self.site.respond(request, peer).await.into();
        // The document's only operation for `POST /` is STS's, and it has no paths that end with a slash.
        let is_of_aws = asked.headers().contains_key("x-amz-target");
        let is_described =
            asked.method() == "POST" && matches!(asked.uri().path(), "/aws" | "/aws/data");
        if is_of_aws && !is_described {
            return answer;
        }
        if let Err(said) = Described::committed().check(&asked, &answer) {
            panic!("{said}");
        }
        answer
    }

    /// Calls S3 as root; `path` is the whole path.
    pub async fn s3(&self, method: &str, path: &str, body: &str) -> Answer {
        self.s3_as(&self.root, method, path, body).await
    }

    /// Calls S3 as this signer.
    pub async fn s3_as(&self, signer: &Signer, method: &str, path: &str, body: &str) -> Answer {
        let time = SystemTime::from(self.clock.now());
        let signer = signer.clone().for_service("s3");
        self.send(signer.request(method, HOST, path, body.as_bytes(), time))
            .await
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

/// The settings of a site.
fn settings(
    allow_immediate_deletion: bool,
    kes_admin: Identity,
    kes_deletion: Deletion,
) -> Settings {
    Settings {
        signing_region: None,
        state_ttl: Duration::from_secs(5),
        allow_immediate_deletion,
        cors_origins: Cors::Off,
        rustfs_spelling: String::new(),
        aws_account_id: "000000000000".parse().expect("an account"),
        aws_region: None,
        aws_ciphertext: AwsCiphertext::default(),
        open_legacy_kes: false,
        audit: AuditSettings::default(),
        kes: KesSettings {
            admin: Some(kes_admin),
            delete: match kes_deletion {
                Deletion::Immediate => OnDelete::Destroy,
                Deletion::Scheduled(_) => OnDelete::Schedule,
            },
            ..KesSettings::default()
        },
    }
}

/// An audit log that refuses what it cannot write. It has a generator of its own, so that a site's random bytes do not
/// depend on its observers.
fn audit_writer(ports: &Writing, output: &Audited) -> AuditWriter {
    AuditWriter::new(
        Box::new(output.clone()),
        AuditTable::new(ports.table.clone()),
        ports.clock.clone(),
        Arc::new(SeededRandom::new(2)),
        AuditWriterSettings {
            strictness: Strictness::Required,
            contexts: Contexts::Names,
            retention_days: 90,
            flushing: Flushing::ByRequest,
            batch_age: Duration::from_millis(250),
        },
    )
    .expect("an audit writer")
}

fn following(
    audit_writer: &Arc<AuditWriter>,
    ports: &Writing,
    errors: &broadcast::Sender<Arc<str>>,
) -> Arc<dyn LogFollowing> {
    let errors = errors.clone();
    Arc::new(Following::new(
        Arc::clone(audit_writer),
        &ports.reading().table,
        &ports.clock,
        Arc::new(move || errors.subscribe()),
    ))
}

/// The mounts of every group of routes.
fn mounts(
    server: &Services,
    ports: &Writing,
    settings: &Settings,
    keys: &Arc<Keys>,
    kes: Kes,
    following: &Arc<dyn LogFollowing>,
) -> Mounts {
    let machine: Arc<dyn Machine> = Arc::new(FixedMachine);
    let metrics = keyway_deployment_assembly::metrics(&machine).expect("metrics");
    let process = Process {
        settings,
        machine: &machine,
        clock: &ports.clock,
        metrics: &metrics,
        kes_proxy: None,
        pays_for_transfer: false,
    };
    let buckets = server.buckets(ports.table_buckets());
    Composition::of(server, &process)
        .with_kes_as(kes)
        .every_group(ports, keys, &buckets, Some(following))
        .and_then(Composition::mounts)
        .expect("routes")
}

/// Says which identity a request proves.
type Identify = Box<dyn Fn(&Request) -> Result<Identity, Unidentified> + Send + Sync>;

/// How a site serves KES's dialect.
struct KesOptions {
    deletion: Deletion,
    open: OpenPaths,
    generation: Generation,
    admin: Identity,
    identify: Identify,
}

impl Default for KesOptions {
    fn default() -> Self {
        Self {
            deletion: Deletion::Immediate,
            open: OpenPaths::default(),
            generation: Generation::Latest,
            admin: Identity::parse(KES_ADMIN).expect("an identity"),
            identify: Box::new(identity_of),
        }
    }
}

/// Replaces the reader of certificates: here a certificate is its identity.
fn identity_of(request: &Request) -> Result<Identity, Unidentified> {
    let Some(ClientCertificate::Pem(text)) = &request.peer.client_certificate else {
        return Err(Unidentified::Missing);
    };
    match &**text {
        "several" => Err(Unidentified::Several),
        text => Identity::parse(text).map_err(|_| Unidentified::Malformed),
    }
}

/// The site of KES's API with the pages, as the service function has it behind KES's REST API.
fn with_pages(kes: Mount<Kes>, services: &Services) -> Site {
    let health = keyway_health::mount(&services.readiness()).expect("routes");
    let document = keyway_openapi::mount(None).expect("routes");
    Site::new(8, kes).with(health).with(document)
}
