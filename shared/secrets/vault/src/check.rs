//! Checks a Vault before the first key is wrapped, and for the service's status.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use keyway_domain::keyring::{Binding, WrapError};
use keyway_domain::vault::TransitKey;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::failure::Failure;
use crate::http::{Call, Limits, body};

/// The binding of the check's test value. No key has this origin.
const PROBE: Binding<'static> = Binding {
    id: "probe",
    version: 1,
    origin: "keyway check",
};
const PROBE_MATERIAL: &[u8; 32] = b"nothing that anybody has to know";

#[derive(Deserialize)]
struct Mounted {
    data: Mount,
}

#[derive(Deserialize)]
struct Mount {
    path: String,
    r#type: String,
    options: Option<MountOptions>,
}

#[derive(Deserialize)]
struct MountOptions {
    version: Option<String>,
}

#[derive(Serialize)]
struct Paths<'a> {
    paths: Vec<&'a str>,
}

#[derive(Deserialize)]
struct Capabilities {
    data: BTreeMap<String, Vec<String>>,
}

impl Client {
    /// Checks everything that can be checked without writing anything, except the transit key if `key` says so.
    pub(crate) async fn examine(&self, limits: Limits, key: TransitKey) -> Result<(), WrapError> {
        self.awake(limits).await?;
        let transit = self
            .mount(limits, self.settings.mount_path.as_str())
            .await?;
        if transit.r#type != "transit" {
            return Err(wrong(self.settings.mount_path.as_str(), "transit").into());
        }
        let kv = self.mount(limits, self.settings.kv_mount.as_str()).await?;
        let version = kv.options.and_then(|options| options.version);
        if kv.r#type != "kv" || version.as_deref() != Some("2") {
            return Err(wrong(self.settings.kv_mount.as_str(), "KV version 2").into());
        }
        self.allowed(limits).await?;
        match key {
            TransitKey::MadeIfMissing => self.make_transit_key(limits).await?,
            TransitKey::MustExist => self.same_transit_key(limits).await?,
        }
        let wrapped = self.encrypt(limits, &PROBE, PROBE_MATERIAL).await?;
        let unwrapped = self.decrypt(limits, &PROBE, &wrapped).await?;
        match unwrapped.ct_eq(PROBE_MATERIAL) {
            true => Ok(()),
            false => Err(Failure::Probe.into()),
        }
    }

    /// Checks that Vault answers and is unsealed. A standby is accepted, because it passes requests on.
    async fn awake(&self, limits: Limits) -> Result<(), Failure> {
        let path = "sys/health?standbyok=true&perfstandbyok=true";
        let mut call = Call::new(Method::GET, path);
        call.in_namespace = false;
        self.connection.http.send(limits, &call).await.map(drop)
    }

    /// The engine that is mounted at exactly this path. A token that may do anything below it may ask for this.
    async fn mount(&self, limits: Limits, mount: &str) -> Result<Mount, Failure> {
        let path = format!("sys/internal/ui/mounts/{mount}");
        let missing = || Failure::NoMount(mount.to_owned());
        let answer = match self.connection.ask(limits, Method::GET, &path, None).await {
            Err(Failure::Denied(_)) => return Err(missing()),
            answer => answer?,
        };
        let found = match answer.status {
            StatusCode::OK => answer.json::<Mounted>("a mount")?.data,
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => return Err(missing()),
            _ => return Err(answer.unforeseen(&path)),
        };
        match found.path.trim_matches('/') == mount {
            true => Ok(found),
            false => Err(missing()),
        }
    }

    /// Checks that the token has all permissions that Keyway needs. Vault lists them, so that nothing must be tried.
    async fn allowed(&self, limits: Limits) -> Result<(), Failure> {
        let data = self.copies_engine().path("data", PROBE.id)?;
        let metadata = self.copies_engine().path("metadata", PROBE.id)?;
        let list = self.copies_engine().folder("metadata");
        let (keys, encrypt, decrypt) = (
            self.transit("keys"),
            self.transit("encrypt"),
            self.transit("decrypt"),
        );
        let needed: [(&str, &[&str]); 6] = [
            (&keys, &["read"]),
            (&encrypt, &["update"]),
            (&decrypt, &["update"]),
            (&data, &["create", "read", "update"]),
            (&metadata, &["delete"]),
            (&list, &["list"]),
        ];
        let path = "sys/capabilities-self";
        let paths = needed.iter().map(|(path, _)| *path).collect();
        let body = body(&Paths { paths }, 4096)?;
        let answer = self
            .connection
            .ask(limits, Method::POST, path, Some(body))
            .await?;
        if answer.status != StatusCode::OK {
            return Err(answer.unforeseen(path));
        }
        let capabilities: Capabilities = answer.json("the token's capabilities")?;
        for (path, needed) in needed {
            let has = |wanted: &str| {
                capabilities
                    .data
                    .get(path)
                    .is_some_and(|granted| granted.iter().any(|one| one == wanted || one == "root"))
            };
            if let Some(missing) = needed.iter().find(|wanted| !has(wanted)) {
                return Err(Failure::Denied(format!("{missing} on {path}")));
            }
        }
        Ok(())
    }
}

fn wrong(path: &str, wanted: &'static str) -> Failure {
    Failure::WrongEngine {
        path: path.to_owned(),
        wanted,
    }
}
