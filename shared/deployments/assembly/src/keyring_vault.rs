//! The settings of a root keyring that a Vault's KV engine keeps.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use keyway_crypto::SecretBytes;
use keyway_domain::KmsError;
use keyway_domain::ports::{Clock, SecretStore};
use keyway_domain::vault::{VaultAddress, VaultAuth, VaultPath, VaultRetryPolicy};
use keyway_secrets_vault::{SecretsPlace, TokenFolders};

use crate::settings::VaultFiles;
use crate::variables::{secret, secret_line};
use crate::vaults_over_http;

const TOKEN: &str = "KEYWAY_ROOT_KEYRING_VAULT_TOKEN";
const TOKEN_FILE: &str = "KEYWAY_ROOT_KEYRING_VAULT_TOKEN_FILE";
const SECRET_ID: &str = "KEYWAY_ROOT_KEYRING_VAULT_SECRET_ID";

/// A start fails within this time, and a request that needs the keyring is refused.
const RETRY_POLICY: VaultRetryPolicy = VaultRetryPolicy {
    timeout: Duration::from_secs(10),
    retries: 3,
};

/// Where a Vault keeps the root keyring, and how Keyway authenticates there.
#[derive(Debug, Clone, Args)]
pub struct KeyringVault {
    /// Address of the Vault or OpenBao whose KV version 2 engine holds the root keyring
    #[arg(long, env = "KEYWAY_ROOT_KEYRING_VAULT", value_name = "URL")]
    pub root_keyring_vault: Option<String>,

    /// Where the KV engine of --root-keyring-vault is mounted
    #[arg(
        long,
        env = "KEYWAY_ROOT_KEYRING_VAULT_MOUNT",
        value_name = "MOUNT",
        default_value = "secret",
        requires = "root_keyring_vault"
    )]
    pub root_keyring_vault_mount: String,

    /// Path in that engine below which the root keyring is
    #[arg(
        long,
        env = "KEYWAY_ROOT_KEYRING_VAULT_PATH",
        value_name = "PATH",
        default_value = "keyway-root",
        requires = "root_keyring_vault"
    )]
    pub root_keyring_vault_path: String,

    /// Namespace of --root-keyring-vault
    #[arg(
        long,
        env = "KEYWAY_ROOT_KEYRING_VAULT_NAMESPACE",
        value_name = "NAMESPACE",
        requires = "root_keyring_vault"
    )]
    pub root_keyring_vault_namespace: Option<String>,

    /// File that holds the token for --root-keyring-vault (or set KEYWAY_ROOT_KEYRING_VAULT_TOKEN); read again every minute
    #[arg(
        long,
        env = "KEYWAY_ROOT_KEYRING_VAULT_TOKEN_FILE",
        value_name = "FILE",
        requires = "root_keyring_vault",
        conflicts_with = "root_keyring_vault_role_id"
    )]
    pub root_keyring_vault_token_file: Option<PathBuf>,

    /// Id of the AppRole for --root-keyring-vault, instead of a token
    #[arg(
        long,
        env = "KEYWAY_ROOT_KEYRING_VAULT_ROLE_ID",
        value_name = "ID",
        requires = "root_keyring_vault"
    )]
    pub root_keyring_vault_role_id: Option<String>,

    /// Where the AppRole method of --root-keyring-vault is mounted
    #[arg(
        long,
        env = "KEYWAY_ROOT_KEYRING_VAULT_ROLE_MOUNT",
        value_name = "MOUNT",
        default_value = "approle",
        requires = "root_keyring_vault_role_id"
    )]
    pub root_keyring_vault_role_mount: String,

    /// File whose first line is the secret id of that AppRole (or set KEYWAY_ROOT_KEYRING_VAULT_SECRET_ID)
    #[arg(
        long,
        env = "KEYWAY_ROOT_KEYRING_VAULT_SECRET_ID_FILE",
        value_name = "FILE",
        requires = "root_keyring_vault_role_id"
    )]
    pub root_keyring_vault_secret_id_file: Option<PathBuf>,
}

impl KeyringVault {
    /// No Vault.
    pub fn nowhere() -> Self {
        Self {
            root_keyring_vault: None,
            root_keyring_vault_mount: String::new(),
            root_keyring_vault_path: String::new(),
            root_keyring_vault_namespace: None,
            root_keyring_vault_token_file: None,
            root_keyring_vault_role_id: None,
            root_keyring_vault_role_mount: String::new(),
            root_keyring_vault_secret_id_file: None,
        }
    }

    /// The Vault's address. An empty variable counts as not set.
    pub fn address(&self) -> Option<&str> {
        self.root_keyring_vault
            .as_deref()
            .filter(|url| !url.is_empty())
    }

    /// The store of the root keyring, if a Vault keeps it. Sends nothing yet.
    ///
    /// # Errors
    /// When the settings contradict each other or are not valid, and when no client can be made from them.
    pub fn secrets(
        &self,
        files: &VaultFiles,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Option<Arc<dyn SecretStore>>> {
        let Some(address) = self.address() else {
            return Ok(None);
        };
        let (auth, credential) = self.login()?;
        let place = SecretsPlace {
            address: VaultAddress::parse("address", address)
                .map_err(|error| wrong("--root-keyring-vault", error))?,
            namespace: match &self.root_keyring_vault_namespace {
                Some(namespace) => Some(path("--root-keyring-vault-namespace", namespace)?),
                None => None,
            },
            mount: path("--root-keyring-vault-mount", &self.root_keyring_vault_mount)?,
            path: path("--root-keyring-vault-path", &self.root_keyring_vault_path)?,
            auth,
        };
        let token_folders = match &self.root_keyring_vault_token_file {
            Some(file) => TokenFolders::only(file.clone()),
            None => TokenFolders::default(),
        };
        let vaults = vaults_over_http(clock, RETRY_POLICY.timeout, files, token_folders)?;
        match vaults.secrets(place, credential.as_ref(), RETRY_POLICY) {
            Ok(secrets) => Ok(Some(Arc::new(secrets))),
            Err(fault) => bail!("--root-keyring-vault (KEYWAY_ROOT_KEYRING_VAULT): {fault:?}"),
        }
    }

    /// Returns the way in which Keyway authenticates, and its credential.
    fn login(&self) -> anyhow::Result<(VaultAuth, Option<SecretBytes>)> {
        // Fails if the file's variable is empty: a file was meant.
        secret(TOKEN_FILE)?;
        let token = secret(TOKEN)?;
        let file = self.root_keyring_vault_secret_id_file.as_deref();
        let secret_id = secret_line(SECRET_ID, file)?;
        let bytes = |text: &str| SecretBytes::from(text.as_bytes().to_vec());
        let role_id = self.root_keyring_vault_role_id.as_deref();
        let role_id = role_id.filter(|id| !id.is_empty());
        match (
            token,
            &self.root_keyring_vault_token_file,
            role_id,
            secret_id,
        ) {
            (Some(token), None, None, None) => Ok((VaultAuth::Token, Some(bytes(&token)))),
            (None, Some(file), None, None) => {
                let path = file
                    .to_str()
                    .context("the path of --root-keyring-vault-token-file is not UTF-8")?;
                let path = path.to_owned();
                Ok((VaultAuth::TokenFile { path }, None))
            }
            (None, None, Some(role_id), Some(secret_id)) => {
                let mount = path(
                    "--root-keyring-vault-role-mount",
                    &self.root_keyring_vault_role_mount,
                )?;
                let role_id = role_id.to_owned();
                Ok((
                    VaultAuth::AppRole { role_id, mount },
                    Some(bytes(&secret_id)),
                ))
            }
            _ => bail!(
                "--root-keyring-vault (KEYWAY_ROOT_KEYRING_VAULT) needs one login: {TOKEN}, or --root-keyring-vault-token-file, or --root-keyring-vault-role-id with {SECRET_ID} or --root-keyring-vault-secret-id-file"
            ),
        }
    }
}

fn path(option: &'static str, text: &str) -> anyhow::Result<VaultPath> {
    VaultPath::parse("path", text).map_err(|error| wrong(option, error))
}

fn wrong(option: &'static str, error: KmsError) -> anyhow::Error {
    match error {
        KmsError::Invalid { reason, .. } => anyhow::anyhow!("{option} {reason}"),
        error => anyhow::anyhow!("{option}: {}", error.for_operator()),
    }
}
