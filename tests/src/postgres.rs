//! PostgreSQL as a real server, installed by `scripts/postgres`. It listens on a socket in its own folder.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

/// Ends the server and removes its folder when its stdin closes, which every end of the test does. `stop` ends it at once,
/// as a crash does, and keeps the data.
const KEEPER: &str = r#"
folder=$1
shift
"$@" </dev/null >>"$folder/log" 2>&1 &
server=$!
trap 'kill -QUIT "$server" 2>/dev/null' INT TERM
read -r word
kill -QUIT "$server" 2>/dev/null
wait "$server"
[ "$word" = stop ] || rm -rf -- "$folder"
"#;

/// The user of every database.
const USER: &str = "keyway";

/// One server, its data in a folder of its own. It ends with this value.
pub struct Postgres {
    folder: TempDir,
    port: Option<u16>,
    process: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl Postgres {
    /// A new server. Without PostgreSQL a test cannot run: in CI that is a failure, elsewhere a printed line.
    pub async fn start() -> Option<Self> {
        Self::start_with("").await
    }

    /// A new server with these lines in its configuration.
    pub async fn start_with(settings: &str) -> Option<Self> {
        let postgres = Self::made()?;
        let made = postgres
            .tool("initdb")
            .args(["--no-sync", "--auth=trust", "--locale=C", "--encoding=UTF8"])
            .args(["--username", USER, "--pgdata"])
            .arg(postgres.data())
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{made:?}");
        postgres.configure(settings);
        postgres.launch().await;
        Some(postgres)
    }

    fn made() -> Option<Self> {
        if !bin().join("postgres").exists() {
            assert!(
                crate::aws::variable("CI").is_none(),
                "PostgreSQL is not installed: run scripts/postgres"
            );
            crate::aws::skipped("PostgreSQL is not installed; run scripts/postgres");
            return None;
        }
        Some(Self {
            folder: tempfile::tempdir().expect("a folder"),
            port: None,
            process: Mutex::default(),
            databases: AtomicU32::new(0),
        })
    }

    /// A standby of this server, which follows it by streaming replication.
    pub async fn standby(&self) -> Self {
        let standby = Self::made().expect("it is installed");
        let made = standby
            .tool("pg_basebackup")
            .args(["--no-sync", "--write-recovery-conf", "--checkpoint=fast"])
            .args(["--username", USER, "--host"])
            .arg(self.folder.path())
            .arg("--pgdata")
            .arg(standby.data())
            .output()
            .expect("pg_basebackup runs");
        assert!(made.status.success(), "{made:?}");
        standby.configure("");
        standby.launch().await;
        standby
    }

    /// Also listens on a port of loopback from the next start on, by TLS with this certificate and key.
    pub fn with_tls(mut self, certificate: &str, key: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        self.port = Some(port);
        for (name, pem) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.data().join(name);
            std::fs::write(&path, pem).expect("a file");
            restrict(&path);
        }
        self.configure("ssl = on");
        self
    }

    /// The port of loopback, if it has one.
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// Replaces the lines of its configuration that are the tests' own.
    pub fn configure(&self, settings: &str) {
        let mut text = format!(
            "unix_socket_directories = '{}'\nmax_connections = 200\nshared_buffers = 16MB\nmax_wal_size = 64MB\n{settings}\n",
            self.folder.path().display()
        );
        let port = self
            .port
            .map(|port| format!("listen_addresses = '127.0.0.1'\nport = {port}\n"));
        let port = port.unwrap_or_else(|| "listen_addresses = ''\n".to_owned());
        write!(text, "{port}").expect("a string");
        std::fs::write(self.data().join("postgresql.conf"), text).expect("a file");
    }

    /// Lets this user in by his password only, from now on.
    pub fn demand_passwords_of(&self, user: &str) {
        let file = self.data().join("pg_hba.conf");
        let rules = std::fs::read_to_string(&file).expect("a file");
        let rules = format!("local all {user} scram-sha-256\n{rules}");
        std::fs::write(&file, rules).expect("a file");
        self.sql("postgres", "SELECT pg_reload_conf()");
    }

    /// Takes connections over TLS only with a client's certificate of this authority, whose common name is the user's, from
    /// the next start on.
    pub fn demand_certificates(&self, authority: &str) {
        std::fs::write(self.data().join("clients.crt"), authority).expect("a file");
        self.configure("ssl = on\nssl_ca_file = 'clients.crt'");
        let file = self.data().join("pg_hba.conf");
        let rules = std::fs::read_to_string(&file).expect("a file");
        std::fs::write(&file, format!("hostssl all all all cert\n{rules}")).expect("a file");
    }

    /// Ends the server as a crash does; its data stay.
    pub fn crash(&self) {
        let Some(mut child) = self.process.lock().unwrap().take() else {
            return;
        };
        let mut stdin = child.stdin.take().expect("a pipe");
        // It may have ended already.
        stdin.write_all(b"stop\n").ok();
        drop(stdin);
        child.wait().expect("the process ends");
    }

    /// Starts the server, and waits until it answers.
    pub async fn launch(&self) {
        let folder = self.folder.path();
        let server = self.tool("postgres");
        let child = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(folder)
            .arg(server.get_program())
            .args(server.get_args())
            .arg("-D")
            .arg(self.data())
            .env(
                "LD_LIBRARY_PATH",
                crate::project().join(".cache/postgres/lib"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        *self.process.lock().unwrap() = Some(child);
        for _ in 0..1200 {
            if self.try_sql("postgres", "SELECT 1").is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        panic!("PostgreSQL does not come up: {log}");
    }

    /// The URL of a new database, over the server's socket.
    pub fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// The URL of a database of this name, over the server's socket.
    pub fn url(&self, database: &str) -> String {
        let folder = self.folder.path().display().to_string();
        let folder = folder.replace('/', "%2F");
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("postgres://{USER}@{folder}{port}/{database}")
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        let port = self.port.unwrap_or(5432);
        self.folder.path().join(format!(".s.PGSQL.{port}"))
    }

    /// Runs SQL in this database with psql; returns the values, a row a line.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let done = self.try_sql(database, sql);
        done.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// As [`Postgres::sql`], where it may fail.
    ///
    /// # Errors
    /// What psql says.
    pub fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = self.tool("psql");
        if let Some(port) = self.port {
            psql.args(["--port", &port.to_string()]);
        }
        let output = psql
            .args([
                "--no-psqlrc",
                "--tuples-only",
                "--no-align",
                "--username",
                USER,
            ])
            .args(["--set=ON_ERROR_STOP=1", "--host"])
            .arg(self.folder.path())
            .args(["--dbname", database, "--command", sql])
            .output()
            .map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// A tool of the server. It refuses to run as root, so root runs it as another user of a namespace in which that user
    /// owns root's files.
    pub fn tool(&self, name: &str) -> Command {
        let program = bin().join(name);
        let mut command = if is_root() {
            let mut command = Command::new("unshare");
            command
                .args(["--user", "--map-user=65534", "--map-group=65534"])
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        command
            .env(
                "LD_LIBRARY_PATH",
                crate::project().join(".cache/postgres/lib"),
            )
            .env("LC_ALL", "C")
            .env_remove("PGPASSFILE");
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.crash();
    }
}

fn bin() -> PathBuf {
    crate::project().join(".cache/postgres/bin")
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0)
}

/// Makes the file readable by its owner only, as the server demands of a key.
fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, mode).expect("it is ours");
}
