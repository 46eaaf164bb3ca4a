use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as _, Command, CommandFactory, Parser, Subcommand};
use tempfile::TempDir;

use crate::{Origin, Parsed, Program, SettingsFile, example};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    Serve(Box<Serve>),
    #[command(subcommand)]
    Tool(Tool),
}

#[derive(Subcommand)]
enum Tool {
    List(Place),
}

#[derive(clap::Args)]
struct Place {
    #[command(flatten)]
    settings_file: SettingsFile,
    /// The folder
    #[arg(long, default_value = "./data", conflicts_with = "table")]
    data_dir: PathBuf,
    /// The table
    #[arg(long)]
    table: Option<String>,
    /// Folders of tokens
    #[arg(long, value_name = "DIR", value_delimiter = ',')]
    token_dir: Vec<String>,
    /// File of the passphrase
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches('s').parse();
    number
        .map(Duration::from_secs)
        .map_err(|_| "is no duration".to_owned())
}

#[derive(clap::Args)]
struct Serve {
    #[command(flatten)]
    place: Place,
    /// Switch
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    start: bool,
    /// How long it lasts
    #[arg(long = "ttl-seconds", visible_alias = "ttl", default_value = "5s", value_parser = seconds)]
    ttl: Duration,
    /// How much there is
    #[arg(long, default_value_t = 90)]
    days: u32,
    /// What is shown
    #[arg(long, value_parser = ["all", "some"])]
    shown: Option<String>,
    /// Certificate
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Key
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
}

struct Ground {
    folder: TempDir,
}

impl Ground {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keyway.toml"), text).unwrap();
        Self { folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("keyway.toml")
    }

    fn parse(&self, arguments: &[&str]) -> Result<Parsed, clap::Error> {
        let none = |_: &OsStr| None;
        let program = Program {
            command: Arguments::command(),
            owner: "serve",
            secrets: &["KEYWAY_PASSPHRASE", "KEYWAY_ROOT_SECRET_KEY"],
            variable: &none,
        };
        let mut all: Vec<OsString> = vec!["keyway".into()];
        all.extend(arguments.iter().map(OsString::from));
        all.push(format!("--config={}", self.file().display()).into());
        program.parse(all)
    }

    fn mistakes(&self, arguments: &[&str]) -> Vec<String> {
        let parsed = self.parse(arguments).unwrap();
        let file = format!("{}:", self.file().display());
        let mistakes = parsed.mistakes.iter().map(ToString::to_string);
        mistakes.map(|mistake| mistake.replace(&file, "")).collect()
    }
}

fn in_force(parsed: &Parsed, key: &str) -> (Vec<String>, Origin) {
    let setting = parsed.in_force.iter().find(|setting| setting.key == key);
    let setting = setting.unwrap();
    (setting.values.clone(), setting.origin.clone())
}

fn values(values: &[&str]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

#[test]
fn file_gives_what_arguments_do_not() {
    let ground = Ground::new(
        "start = true\ndata_dir = \"a\"\nttl = 30\ndays = 7\ntoken-dir = [\"x\", \"y\"]\nshown = \"all\"\n",
    );
    let parsed = ground.parse(&["serve", "--days", "8"]).unwrap();
    assert_eq!(parsed.mistakes, []);
    let at = |line| Origin::File(ground.file(), line);
    for (key, expected, origin) in [
        ("start", &["true"][..], at(1)),
        ("data-dir", &["a"], at(2)),
        ("ttl-seconds", &["30"], at(3)),
        ("days", &["8"], Origin::CommandLine),
        ("token-dir", &["x", "y"], at(5)),
        ("shown", &["all"], at(6)),
        ("table", &[], Origin::Default),
        ("cert", &[], Origin::Default),
    ] {
        assert_eq!(in_force(&parsed, key), (values(expected), origin), "{key}");
    }
    // A switch without a value counts as given, and `--` ends nothing of the file.
    let parsed = ground.parse(&["serve", "--start=false"]).unwrap();
    assert_eq!(
        in_force(&parsed, "start"),
        (values(&["false"]), Origin::CommandLine)
    );
}

#[test]
fn other_command_takes_only_the_options_that_it_has() {
    let ground = Ground::new("data-dir = \"a\"\ndays = 7\nkey = \"k\"\n");
    let parsed = ground.parse(&["tool", "list"]).unwrap();
    assert_eq!(parsed.mistakes, []);
    let keys: Vec<&str> = parsed.in_force.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(keys, ["data-dir", "table", "token-dir", "passphrase-file"]);
    let (_, list) = parsed.matches.subcommand().unwrap();
    let (_, list) = list.subcommand().unwrap();
    assert_eq!(
        list.get_one::<PathBuf>("data_dir"),
        Some(&PathBuf::from("a"))
    );
    // A mistake in what only the owner takes is one as well.
    let ground = Ground::new("days = \"many\"\n");
    assert_eq!(ground.mistakes(&["tool", "list"]).len(), 1);
}

#[test]
fn all_mistakes_are_told_at_once_with_line_and_key() {
    let ground = Ground::new(
        "start = \"true\"\ndays = -1\nttl = \"long\"\nshown = \"al\"\ndata-dir = \"\"\ntoken-dir = [1]\nlisten = 1\n\
         strat = true\npassphrase = \"hunter2\"\nroot-secret-key = \"hunter2\"\ndata_dir = \"b\"\nttl-seconds = 1.5\n\
         [serve]\ndays = 1\n",
    );
    let told = ground.mistakes(&["serve"]);
    for (line, key, text) in [
        (1, "start", "is a text; expected true or false"),
        (2, "days", "invalid value"),
        (3, "ttl", "is no duration"),
        (4, "shown", "\"al\" is none of all, some"),
        (5, "data-dir", "is empty"),
        (
            6,
            "token-dir",
            "is a list of other values; expected a list of texts",
        ),
        (7, "listen", "is no setting"),
        (8, "strat", "is no setting: is start meant?"),
        (
            9,
            "passphrase",
            "name that by passphrase-file, or set the variable KEYWAY_PASSPHRASE",
        ),
        (
            10,
            "root-secret-key",
            "set the variable KEYWAY_ROOT_SECRET_KEY",
        ),
        (12, "ttl-seconds", "is a number with a decimal point"),
        (13, "serve", "is a section"),
    ] {
        let begin = format!("{line}: {key}: ");
        let found = told.iter().find(|one| one.starts_with(&begin));
        let found = found.unwrap_or_else(|| panic!("{begin} in {told:#?}"));
        assert!(line == 2 || found.contains(text), "{found}");
    }
    assert!(!told.concat().contains("hunter2"), "{told:#?}");
}

#[test]
fn setting_that_is_given_twice_is_refused() {
    let ground = Ground::new("data-dir = \"a\"\ndata_dir = \"b\"\nttl = 1\nttl-seconds = 1\n");
    assert_eq!(
        ground.mistakes(&["serve"]),
        [
            "2: data_dir: is the setting of line 1 again",
            "4: ttl-seconds: is the setting of line 3 again"
        ]
    );
}

#[test]
fn word_of_a_file_that_is_not_toml_is_not_repeated() {
    let ground = Ground::new("passphrase = hunter2\nhunter3 = 1\ndays = \nstart = 1\nhunter4\n");
    let told = ground.mistakes(&["serve"]);
    for begin in [
        "1: is not TOML: ",
        "1: passphrase: is a secret",
        "3: is not TOML: ",
        "5: is not TOML: ",
        "4: start: ",
    ] {
        assert!(
            told.iter().any(|one| one.starts_with(begin)),
            "{begin} {told:#?}"
        );
    }
    assert!(!told.concat().contains("hunter"), "{told:#?}");
}

#[test]
fn settings_that_do_not_go_together_are_told_with_the_other_place() {
    let ground = Ground::new("data-dir = \"a\"\ntable = \"t\"\ncert = \"c\"\n");
    assert_eq!(
        ground.mistakes(&["serve"]),
        [
            "1: data-dir: does not go together with --table (line 2)",
            "3: cert: needs --key beside it"
        ]
    );
    let ground = Ground::new("table = \"t\"\n");
    assert_eq!(
        ground.mistakes(&["serve", "--data-dir", "a"]),
        ["1: table: does not go together with --data-dir (an argument)"]
    );
    // An argument and the file together are as good as two arguments.
    let ground = Ground::new("key = \"k\"\n");
    assert_eq!(ground.mistakes(&["serve", "--cert", "c"]), [""; 0]);
}

#[test]
fn wrong_arguments_are_errors_of_the_command_line() {
    let ground = Ground::new("days = 7\n");
    for arguments in [
        &["serve", "--bogus"][..],
        &["serve", "--days", "x"],
        &["serve", "--cert", "c"],
        &["serve", "--help"],
        &[],
    ] {
        assert!(ground.parse(arguments).is_err(), "{arguments:?}");
    }
}

#[test]
fn help_names_the_variables() {
    let help = Ground::new("").parse(&["serve", "--help"]).err().unwrap();
    assert!(help.to_string().contains("KEYWAY_CONFIG"), "{help}");
}

#[test]
fn file_that_cannot_be_used_is_told() {
    let ground = Ground::new("days = 7\n");
    std::fs::remove_file(ground.file()).unwrap();
    let told = ground.parse(&["serve"]).unwrap().mistakes;
    assert!(told[0].text.starts_with("cannot be read: "), "{told:?}");
    std::fs::write(ground.file(), [0xff]).unwrap();
    let told = ground.parse(&["serve"]).unwrap().mistakes;
    assert_eq!(told[0].text, "is not UTF-8");
    std::fs::write(ground.file(), "#".repeat(256 * 1024 + 1)).unwrap();
    let told = ground.parse(&["serve"]).unwrap().mistakes;
    assert!(told[0].text.starts_with("is longer than "), "{told:?}");
}

#[cfg(unix)]
#[test]
fn file_that_every_user_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let ground = Ground::new("days = 7\n");
    std::fs::set_permissions(ground.file(), std::fs::Permissions::from_mode(0o646)).unwrap();
    let told = ground.parse(&["serve"]).unwrap().mistakes;
    assert!(told[0].text.contains("every user may write"), "{told:?}");
}

#[test]
fn example_has_every_option_and_is_valid_without_its_comment_signs() {
    let text = example(&Serve::augment_args(Command::new("serve")));
    let lines: String = text
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with(' '))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(
        lines,
        "data-dir = \"./data\"\ntable = \"TABLE\"\ntoken-dir = [\"DIR\"]\npassphrase-file = \"FILE\"\nstart = false\n\
         ttl-seconds = \"5s\"\ndays = 90\nshown = \"SHOWN\"\ncert = \"CERT\"\nkey = \"KEY\"\n"
    );
    let lines = lines
        .replace("\"SHOWN\"", "\"all\"")
        .replace("table = \"TABLE\"\n", "");
    assert_eq!(Ground::new(&lines).mistakes(&["serve"]), [""; 0]);
    assert!(text.contains("# What is shown: all, some\n"), "{text}");
}
