//! The life of a deployment: it is installed, used, backed up, lost with its machine, restored on another one, and put under a
//! new root. Everything that was ever encrypted still opens.

use std::fs;
use std::path::PathBuf;

use keyway_tests::{Answer, Server, ServerOptions, Signer};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kes::{ADMIN, ADMIN_KEY, admin};
use crate::packages::installed_program;
use crate::{access_key_by, folder, signer};

const BACKUP_PASSPHRASE: &str = "a passphrase that is kept elsewhere";

/// A machine on which the package is installed: a folder with settings, a passphrase of its own, and the data.
struct Machine {
    folder: TempDir,
}

impl Machine {
    fn installed(passphrase: &str) -> Self {
        let machine = Self { folder: folder() };
        fs::write(machine.path("passphrase"), format!("{passphrase}\n")).unwrap();
        let settings = format!(
            "data-dir = {:?}\npassphrase-file = {:?}\nlisten = \"127.0.0.1:0\"\nkes-listen = \"127.0.0.1:0\"\n\
             kes-admin-identity = {ADMIN:?}\n",
            machine.data(),
            machine.path("passphrase"),
        );
        fs::write(machine.path("keyway.toml"), settings).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn options(&self) -> ServerOptions {
        ServerOptions::not_started()
            .installed(&installed_program())
            .without_root()
            .variable("KEYWAY_CONFIG", self.path("keyway.toml").to_str().unwrap())
    }

    /// Starts the service as its unit does, which reads the settings file.
    async fn start(&self) -> Server {
        let options = self.options().argument("--start");
        options.start_in_place().await
    }

    /// Runs a command on the deployment of this machine; it must succeed.
    async fn run(&self, arguments: &[&str]) -> String {
        succeeded(&self.options(), arguments).await
    }

    async fn roots(&self) -> Value {
        let status = self.run(&["root", "status", "--output", "json"]).await;
        serde_json::from_str(&status).unwrap()
    }
}

async fn succeeded(options: &ServerOptions, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = options.run(arguments).await;
    assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
    stdout
}

/// What clients keep while machines come and go: credentials, ciphertexts and encrypted files.
struct Clients {
    signer: Signer,
    key: Value,
    files: TempDir,
    /// Ciphertexts of data keys with their plaintexts, by RustFS's API and by KES's.
    data_keys: [Vec<(String, String)>; 2],
    /// The names of the files that were encrypted.
    encrypted: Vec<String>,
}

fn content(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(200_000).collect()
}

impl Clients {
    fn path(&self, name: &str) -> String {
        self.files.path().join(name).to_str().unwrap().to_owned()
    }

    /// The commands that call a server, by RustFS's API.
    fn rustfs(&self, server: &Server) -> ServerOptions {
        let text = |name: &str| self.key[name].as_str().unwrap();
        Self::commands(&format!("http://{}", server.address))
            .variable("AWS_ACCESS_KEY_ID", text("access_key_id"))
            .variable("AWS_SECRET_ACCESS_KEY", text("secret_access_key"))
    }

    /// The same, by KES's API.
    fn kes(server: &Server, machine: &Machine) -> ServerOptions {
        let authority = machine.data().join("kes-listener.crt");
        Self::commands(&format!("https://{}", server.kes()))
            .variable("KEYWAY_API", "kes")
            .variable("KEYWAY_CA_FILE", authority.to_str().unwrap())
            .variable("KEYWAY_API_KEY", ADMIN_KEY)
    }

    fn commands(endpoint: &str) -> ServerOptions {
        ServerOptions::not_started()
            .installed(&installed_program())
            .without_root()
            .variable("KEYWAY_PROFILES_FILE", "/dev/null")
            .variable("KEYWAY_ENDPOINT", endpoint)
    }

    async fn call(&self, server: &Server, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let answer = server.call_as(&self.signer, "POST", path, &body).await;
        answer.ok();
        answer
    }

    /// Makes a data key and a file by each API.
    async fn use_keys(&mut self, server: &Server, machine: &Machine, when: &str) {
        let context = json!({ "bucket": "records", "object": when });
        let asked = json!({ "key_id": "records", "encryption_context": context });
        let made = self.call(server, "/kms/generate-data-key", &asked).await;
        self.data_keys[0].push((made.text("ciphertext_blob"), made.text("plaintext_key")));
        let kes = admin(server, &machine.data());
        let made = kes
            .call("PUT", "/v1/key/generate/objects", Some(&json!({})))
            .await;
        self.data_keys[1].push((made.text("ciphertext"), made.text("plaintext")));
        for (options, key) in [
            (self.rustfs(server), "records"),
            (Self::kes(server, machine), "objects"),
        ] {
            let name = format!("{key}-{when}");
            fs::write(self.path("in"), content(&name)).unwrap();
            let encrypt = [
                "encrypt-file",
                "--key",
                key,
                &self.path("in"),
                &self.path(&name),
            ];
            succeeded(&options, &encrypt).await;
            self.encrypted.push(name);
        }
    }

    /// Opens everything that was ever encrypted.
    async fn open_all(&self, server: &Server, machine: &Machine) {
        for (number, (ciphertext, plaintext)) in self.data_keys[0].iter().enumerate() {
            let object = TIMES[number];
            let context = json!({ "bucket": "records", "object": object });
            let asked = json!({ "ciphertext_blob": ciphertext, "encryption_context": context });
            let opened = self.call(server, "/kms/decrypt", &asked).await;
            assert_eq!(opened.text("plaintext"), *plaintext, "{object}");
        }
        let kes = admin(server, &machine.data());
        for (ciphertext, plaintext) in &self.data_keys[1] {
            let asked = json!({ "ciphertext": ciphertext });
            let opened = kes
                .call("PUT", "/v1/key/decrypt/objects", Some(&asked))
                .await;
            assert_eq!(opened.text("plaintext"), *plaintext);
        }
        for name in &self.encrypted {
            let options = if name.starts_with("records") {
                self.rustfs(server)
            } else {
                Self::kes(server, machine)
            };
            let again = self.path("again");
            let decrypt = ["decrypt-file", "--force", &self.path(name), &again];
            succeeded(&options, &decrypt).await;
            assert_eq!(fs::read(again).unwrap(), content(name), "{name}");
        }
    }
}

/// When the clients encrypt.
const TIMES: [&str; 3] = ["before", "restored", "rotated"];

fn backup_options(machine: &Machine) -> ServerOptions {
    let options = machine.options();
    options.variable("KEYWAY_BACKUP_PASSPHRASE", BACKUP_PASSPHRASE)
}

#[tokio::test]
async fn everything_opens_after_the_loss_of_the_machine_and_of_its_root() {
    let lost = Machine::installed("the passphrase of the first machine");
    let server = lost.start().await;
    let key = access_key_by(&lost.options(), &lost.data(), &["--policy", "kms-admin"]).await;
    let mut clients = Clients {
        signer: signer(&key),
        key,
        files: folder(),
        data_keys: Default::default(),
        encrypted: Vec::new(),
    };
    let create = ["key", "create", "records", "--tag", "owner=archive"];
    succeeded(&clients.rustfs(&server), &create).await;
    let create = ["key", "create", "objects"];
    succeeded(&Clients::kes(&server, &lost), &create).await;
    clients.use_keys(&server, &lost, TIMES[0]).await;
    clients.open_all(&server, &lost).await;

    // The backup is made while the server runs, and kept elsewhere.
    let backup = clients.path("keyway.backup");
    let create = ["backup", "create", "--with-root", "--to", &backup];
    succeeded(&backup_options(&lost), &create).await;
    server.kill().await;
    fs::remove_dir_all(lost.folder.path()).unwrap();

    let machine = Machine::installed("the passphrase of the second machine");
    let restore = ["restore", "--from", &backup];
    succeeded(&backup_options(&machine), &restore).await;
    let server = machine.start().await;
    clients.open_all(&server, &machine).await;
    clients.use_keys(&server, &machine, TIMES[1]).await;

    let rotated = machine.run(&["root", "rotate", "--output", "json"]).await;
    let status = machine.roots().await;
    assert_eq!(status["current"], "r2", "{rotated}");
    assert_eq!(status["roots"][0]["records"], 0, "{status}");
    clients.use_keys(&server, &machine, TIMES[2]).await;
    machine.run(&["root", "retire", "r1"]).await;
    let status = machine.roots().await;
    assert_eq!(status["roots"].as_array().unwrap().len(), 1, "{status}");
    clients.open_all(&server, &machine).await;

    // A process that never knew the old root opens everything too.
    let (code, _, stderr) = server.stop().await;
    assert_eq!(code, Some(0), "{stderr}");
    let server = machine.start().await;
    clients.open_all(&server, &machine).await;
    machine.run(&["table", "verify"]).await;
    machine.run(&["audit", "verify"]).await;
}
