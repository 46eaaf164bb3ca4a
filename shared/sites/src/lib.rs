//! Sites composed of groups of routes, for every function, the binary and the suites, and the inventory of all routes.
//!
//! A group is the routes of one subject in every dialect that has it. A process calls one method for each group that it
//! serves.

mod inventory;

use std::ops::Deref;
use std::sync::Arc;

use anyhow::{Context, bail};
use keyway_deployment_assembly::{Process, Services, Writing, kes_metrics, minio_metrics};
use keyway_dialect_aws::{self as aws, Aws};
use keyway_dialect_kes::{self as kes, Kes};
use keyway_dialect_minio::{self as minio, Minio};
use keyway_dialect_rustfs::{self as rustfs, RustFs};
use keyway_dialect_s3::{self as s3, S3};
use keyway_dialect_sts::{self as sts, Sts};
use keyway_domain::access::Sessions;
use keyway_domain::audit::{AuditReading, LogFollowing};
use keyway_domain::bucket_operations::BucketOperations;
use keyway_domain::control::ServiceControl;
use keyway_domain::identity::{Identities, IdentityControl};
use keyway_domain::keys::Keys;
use keyway_http::{Dialect, Mount, Page, Route, Site};
use keyway_openapi::SendingLimit;

pub use inventory::{Entry, inventory};

/// The groups of routes that one process serves.
pub struct Composition<'a> {
    services: &'a Services,
    process: &'a Process<'a>,
    kes: Option<Kes>,
    of_rustfs: Vec<Route<RustFs>>,
    of_minio: Vec<Route<Minio>>,
    of_kes: Vec<Route<Kes>>,
    /// The mounts of the other dialects. The method of a group makes them, so a function links only the dialects that
    /// it serves.
    mounts: Mounts,
}

impl<'a> Composition<'a> {
    /// Starts with no group, and without KES's API.
    pub fn of(services: &'a Services, process: &'a Process<'a>) -> Self {
        Self {
            services,
            process,
            kes: None,
            of_rustfs: Vec::new(),
            of_minio: Vec::new(),
            of_kes: Vec::new(),
            mounts: Mounts::default(),
        }
    }

    /// Adds the routes of KES's API to every group that is added from now on, as the settings say.
    ///
    /// # Errors
    /// When a setting of KES's API cannot be used; the text names it.
    pub fn with_kes(self) -> anyhow::Result<Self> {
        let kes = configured(self.process, &self.services.identities)?;
        Ok(self.with_kes_as(kes))
    }

    /// Like [`Composition::with_kes`], with this dialect.
    #[must_use]
    pub fn with_kes_as(mut self, kes: Kes) -> Self {
        self.kes = Some(kes);
        self
    }

    /// Adds master keys.
    #[must_use]
    pub fn keys(mut self, keys: &Arc<Keys>) -> Self {
        let routes = rustfs::key_routes(keys, &self.services.data_keys);
        self.of_rustfs.extend(routes);
        self.of_minio.extend(minio::key_routes(keys));
        if let Some(kes) = &self.kes {
            let deletion = self.process.settings.kes.deletion();
            let routes = kes::key_routes(keys, deletion, kes.generation());
            self.of_kes.extend(routes);
        }
        self
    }

    /// Adds data keys. Their routes only read.
    #[must_use]
    pub fn data_keys(mut self) -> Self {
        let data_keys = &self.services.data_keys;
        self.of_rustfs.extend(rustfs::datakey_routes(data_keys));
        self.of_minio.extend(minio::datakey_routes(data_keys));
        if self.kes.is_some() {
            let sealing = self.process.settings.kes.sealing();
            self.of_kes.extend(kes::datakey_routes(data_keys, sealing));
        }
        self
    }

    /// Adds the service itself. KES's routes of it only read.
    ///
    /// # Errors
    /// When the settings name an unknown spelling of RustFS's API.
    pub fn service(mut self, control: &Arc<ServiceControl>) -> anyhow::Result<Self> {
        let Process {
            settings,
            machine,
            clock,
            metrics,
            ..
        } = self.process;
        let spelling = settings.rustfs_spelling.parse();
        let spelling = spelling.context("--rustfs-spelling (KEYWAY_RUSTFS_SPELLING)")?;
        self.of_rustfs
            .extend(rustfs::service_routes(control, spelling));
        let source = minio_metrics(metrics);
        self.of_minio
            .extend(minio::service_routes(control, machine, &source));
        if let Some(kes) = &self.kes {
            let (service, source) = (&self.services.service, kes_metrics(metrics));
            let generation = kes.generation();
            let routes = kes::service_routes(service, machine, clock, &source, generation);
            self.of_kes.extend(routes);
        }
        Ok(self)
    }

    /// Adds the logs. Without `following`, only the table's part of them can be read.
    #[must_use]
    pub fn log(
        mut self,
        reading: &Arc<AuditReading>,
        following: Option<&Arc<dyn LogFollowing>>,
    ) -> Self {
        self.of_rustfs.extend(rustfs::audit_routes(reading));
        if self.kes.is_some() {
            self.of_kes.extend(kes::log_routes(reading, following));
        }
        self
    }

    /// Adds policies and identities, which only KES's API has.
    #[must_use]
    pub fn access(mut self, control: &Arc<IdentityControl>) -> Self {
        if let Some(kes) = &self.kes {
            let routes = kes::access_routes(&self.services.identities, control, kes.generation());
            self.of_kes.extend(routes);
        }
        self
    }

    /// Adds buckets, in JSON and in S3's own protocol.
    ///
    /// # Errors
    /// As [`Composition::mounts`].
    pub fn buckets(mut self, buckets: &Arc<BucketOperations>) -> anyhow::Result<Self> {
        let authenticator = &self.services.authenticator;
        let json = rustfs::bucket_mount(authenticator, buckets)?;
        self.mounts.buckets = Some(Mounted::of(json));
        self.mounts.s3 = Some(Mounted::of(s3::mount(authenticator, buckets)?));
        Ok(self)
    }

    /// Adds the caller's own account.
    #[must_use]
    pub fn account(mut self, buckets: &Arc<BucketOperations>) -> Self {
        self.of_rustfs.extend(rustfs::account_routes(buckets));
        self
    }

    /// Adds temporary credentials. Without `sessions`, callers can only ask who they are.
    ///
    /// # Errors
    /// As [`Composition::mounts`].
    pub fn sessions(mut self, sessions: Option<Arc<Sessions>>) -> anyhow::Result<Self> {
        let account = self.process.settings.aws_account_id.clone();
        let mount = sts::mount(&self.services.authenticator, sessions, account)?;
        self.mounts.sts = Some(Mounted::of(mount));
        Ok(self)
    }

    /// Adds AWS KMS's API in a path of its own, where one route serves every operation.
    ///
    /// # Errors
    /// As [`Composition::mounts`].
    pub fn aws_keys(mut self, keys: &Arc<Keys>) -> anyhow::Result<Self> {
        let (authenticator, serving) = (&self.services.authenticator, self.aws_serving());
        let mount = aws::keys_mount(authenticator, &serving, keys)?;
        self.mounts.aws.push(Mounted::of(mount));
        Ok(self)
    }

    /// Adds the operations of AWS KMS's API that change no key.
    ///
    /// # Errors
    /// As [`Composition::mounts`].
    pub fn aws_data(mut self) -> anyhow::Result<Self> {
        let (authenticator, serving) = (&self.services.authenticator, self.aws_serving());
        let mount = aws::data_mount(authenticator, &serving)?;
        self.mounts.aws.push(Mounted::of(mount));
        Ok(self)
    }

    /// Adds AWS KMS's API at the root, for requests with the header that names the operation.
    ///
    /// # Errors
    /// As [`Composition::mounts`].
    pub fn aws_root(mut self, keys: &Arc<Keys>) -> anyhow::Result<Self> {
        let (authenticator, serving) = (&self.services.authenticator, self.aws_serving());
        let mount = aws::root_mount(authenticator, &serving, keys)?;
        self.mounts.aws.push(Mounted::of(mount));
        Ok(self)
    }

    fn aws_serving(&self) -> Arc<aws::Serving> {
        let Process {
            settings, clock, ..
        } = self.process;
        Arc::new(aws::Serving {
            directory: self.services.directory(),
            data_keys: Arc::clone(&self.services.data_keys),
            account: settings.aws_account_id.clone(),
            region: settings.aws_region.clone(),
            envelope: settings.aws_ciphertext.envelope(),
            clock: Arc::clone(clock),
        })
    }

    /// Adds the pages: health probes and the OpenAPI document.
    ///
    /// # Errors
    /// As [`Composition::mounts`].
    pub fn pages(mut self) -> anyhow::Result<Self> {
        let health = keyway_health::mount(&self.services.readiness())?;
        self.mounts.health = Some(Mounted::of(health));
        let limit = self.process.pays_for_transfer.then(|| {
            let clock = Arc::clone(self.process.clock);
            SendingLimit::by(move || clock.monotonic())
        });
        self.mounts.document = Some(Mounted::of(keyway_openapi::mount(limit)?));
        Ok(self)
    }

    /// Adds every group.
    ///
    /// # Errors
    /// As [`Composition::service`].
    pub fn every_group(
        self,
        ports: &Writing,
        keys: &Arc<Keys>,
        buckets: &Arc<BucketOperations>,
        following: Option<&Arc<dyn LogFollowing>>,
    ) -> anyhow::Result<Self> {
        let services = self.services;
        let log = ports.reading().audit_reading();
        let composition = self
            .keys(keys)
            .data_keys()
            .access(&ports.identity_control(services))
            .service(&ports.control(services))?
            .log(&log, following)
            .buckets(buckets)?
            .account(buckets)
            .sessions(ports.sessions(services))?
            .aws_keys(keys)?
            .aws_data()?
            .aws_root(keys)?
            .pages()?;
        Ok(composition)
    }

    /// Mounts the groups.
    ///
    /// # Errors
    /// When two routes of one dialect conflict, which a test rules out.
    pub fn mounts(self) -> anyhow::Result<Mounts> {
        let authenticator = &self.services.authenticator;
        let mut mounts = self.mounts;
        if !self.of_rustfs.is_empty() {
            let mount = rustfs::mount(authenticator, self.of_rustfs)?;
            mounts.rustfs = Some(Mounted::of(mount));
        }
        if !self.of_minio.is_empty() {
            let mount = minio::mount(authenticator, self.of_minio)?;
            mounts.minio = Some(Mounted::of(mount));
        }
        if let Some(kes) = self.kes {
            mounts.kes = Some(Mounted::of(kes::mount(kes, self.of_kes)?));
        }
        Ok(mounts)
    }
}

/// The mounts of a process, by dialect.
#[derive(Default)]
pub struct Mounts {
    /// RustFS's API, without buckets.
    pub rustfs: Option<Mounted<RustFs>>,
    /// MinIO's API.
    pub minio: Option<Mounted<Minio>>,
    /// KES's API. A process that serves it on a separate listener takes it from here.
    pub kes: Option<Mounted<Kes>>,
    /// Buckets in RustFS's API.
    pub buckets: Option<Mounted<RustFs>>,
    /// Buckets in S3's own protocol.
    pub s3: Option<Mounted<S3>>,
    /// AWS KMS's API, a mount for each of its prefixes. At the root it shares the path with temporary credentials, whose
    /// requests have no header `X-Amz-Target`.
    pub aws: Vec<Mounted<Aws>>,
    /// Temporary credentials.
    pub sts: Option<Mounted<Sts>>,
    /// Health probes.
    pub health: Option<Mounted<Page>>,
    /// The OpenAPI document.
    pub document: Option<Mounted<Page>>,
}

impl Mounts {
    /// The site of all mounts. The first mount refuses requests outside every mount's area. `instance` is random, so
    /// that request ids differ between processes.
    ///
    /// # Errors
    /// When there is no mount.
    pub fn site(self, instance: u64) -> anyhow::Result<Site> {
        let site = with(None, instance, self.rustfs);
        let site = with(site, instance, self.minio);
        let site = with(site, instance, self.kes);
        let site = with(site, instance, self.buckets);
        let site = with(site, instance, self.s3);
        let site = (self.aws.into_iter()).fold(site, |site, aws| with(site, instance, Some(aws)));
        let site = with(site, instance, self.sts);
        let site = with(site, instance, self.health);
        match with(site, instance, self.document) {
            Some(site) => Ok(site),
            None => bail!("a site needs a group of routes"),
        }
    }
}

fn with<D: Dialect>(
    site: Option<Site>,
    instance: u64,
    mounted: Option<Mounted<D>>,
) -> Option<Site> {
    match mounted {
        None => site,
        Some(Mounted { mount, add }) => Some(add(site, instance, mount)),
    }
}

/// A mount, and the function that adds it to a site. The pointer is taken where the mount is made, so a program that never
/// makes this mount does not link what serves it.
pub struct Mounted<D: Dialect> {
    mount: Mount<D>,
    add: fn(Option<Site>, u64, Mount<D>) -> Site,
}

impl<D: Dialect> Mounted<D> {
    fn of(mount: Mount<D>) -> Self {
        Self {
            mount,
            add: |site, instance, mount| match site {
                None => Site::new(instance, mount),
                Some(site) => site.with(mount),
            },
        }
    }

    /// The mount, for a site of its own.
    pub fn into_mount(self) -> Mount<D> {
        self.mount
    }
}

impl<D: Dialect> Deref for Mounted<D> {
    type Target = Mount<D>;

    fn deref(&self) -> &Mount<D> {
        &self.mount
    }
}

/// The site of a process that serves only policies and identities, and verifies no signatures.
///
/// # Errors
/// As [`Composition::with_kes`].
pub fn access_site(
    process: &Process<'_>,
    identities: &Arc<Identities>,
    control: &Arc<IdentityControl>,
    instance: u64,
) -> anyhow::Result<Site> {
    let dialect = configured(process, identities)?;
    let routes = kes::access_routes(identities, control, dialect.generation());
    Ok(Site::new(instance, kes::mount(dialect, routes)?))
}

fn configured(process: &Process<'_>, identities: &Arc<Identities>) -> anyhow::Result<Kes> {
    let (settings, proxy) = (&process.settings.kes, process.kes_proxy.clone());
    let identities = Arc::clone(identities);
    let kes = Kes::configured(proxy, identities, &settings.open, &settings.generation)?;
    Ok(kes)
}
