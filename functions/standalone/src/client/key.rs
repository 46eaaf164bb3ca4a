//! `keyway key`.

use std::collections::BTreeMap;
use std::io;

use clap::{Args, Subcommand, ValueEnum};
use keyway_client::{Client, DeleteWhen, Key, KeyChange, NewKey};
use keyway_domain::keys::KeyId;

use super::data_key::{no_repeats, pair};
use super::printing::{self, Table, shown};
use super::{EXIT_CODES, Server, key_id, usage};
use crate::migration::Output;

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key
    #[command(after_help = EXIT_CODES)]
    Create(Box<Create>),
    /// List keys
    #[command(after_help = EXIT_CODES)]
    List(Box<List>),
    /// Show a key
    #[command(visible_alias = "describe", after_help = EXIT_CODES)]
    Show(Box<OneKey>),
    /// Permit the use of a key that is disabled
    #[command(after_help = EXIT_CODES)]
    Enable(Box<OneKey>),
    /// Refuse every use of a key, decryption included
    #[command(after_help = EXIT_CODES)]
    Disable(Box<OneKey>),
    /// Make a new version of a key, which encrypts from now on; older versions still decrypt
    #[command(after_help = EXIT_CODES)]
    Rotate(Box<OneKey>),
    /// Schedule the deletion of a key, which refuses every use from now on
    #[command(after_help = EXIT_CODES)]
    Delete(Box<Delete>),
    /// Keep a key whose deletion is scheduled; its state is then that of before
    #[command(after_help = EXIT_CODES)]
    CancelDeletion(Box<OneKey>),
    /// Add tags to a key, or change their values
    #[command(after_help = EXIT_CODES)]
    Tag(Box<Tag>),
    /// Remove tags from a key
    #[command(after_help = EXIT_CODES)]
    Untag(Box<Untag>),
}

#[derive(Args)]
pub(crate) struct Create {
    #[command(flatten)]
    server: Server,

    /// The key's id; without it, the server draws a UUID
    #[arg(value_name = "ID", value_parser = key_id)]
    key: Option<KeyId>,

    /// A text for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// A tag; may be given more than once
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = pair)]
    tags: Vec<(String, String)>,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    server: Server,

    /// Only keys whose ids begin so
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,

    /// Only keys in this state
    #[arg(long, value_enum)]
    state: Option<State>,

    /// How to print them; as JSON, they are one array
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    Enabled,
    Disabled,
    PendingDeletion,
}

impl From<State> for keyway_client::KeyState {
    fn from(state: State) -> Self {
        match state {
            State::Enabled => Self::Enabled,
            State::Disabled => Self::Disabled,
            State::PendingDeletion => Self::PendingDeletion,
        }
    }
}

#[derive(Args)]
pub(crate) struct OneKey {
    #[command(flatten)]
    server: Server,

    /// The key's id
    #[arg(value_name = "ID", value_parser = key_id)]
    key: KeyId,

    /// How to print the key
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    server: Server,

    /// The key's id
    #[arg(value_name = "ID", value_parser = key_id)]
    key: KeyId,

    /// Destroy the key after so many days, 7 to 30; without it the server's default, 7
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    days: Option<u32>,

    /// Destroy the key at once; nothing that it encrypted can then be decrypted. KES's API knows no other way
    #[arg(long, conflicts_with = "days", requires = "confirm")]
    immediately: bool,

    /// With --immediately: the key's id again
    #[arg(long, value_name = "ID", requires = "immediately")]
    confirm: Option<String>,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct Tag {
    #[command(flatten)]
    server: Server,

    /// The key's id
    #[arg(value_name = "ID", value_parser = key_id)]
    key: KeyId,

    /// The tags
    #[arg(value_name = "NAME=VALUE", required = true, value_parser = pair)]
    tags: Vec<(String, String)>,

    /// How to print the key
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct Untag {
    #[command(flatten)]
    server: Server,

    /// The key's id
    #[arg(value_name = "ID", value_parser = key_id)]
    key: KeyId,

    /// The tags' names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,

    /// How to print the key
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) async fn run(command: KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Create(arguments) => create(*arguments).await,
        KeyCommand::List(arguments) => list(*arguments).await,
        KeyCommand::Show(arguments) => {
            let client = arguments.server.connect()?;
            print(&client.describe(&arguments.key).await?, arguments.output)
        }
        KeyCommand::Enable(arguments) => change(*arguments, KeyChange::Enable).await,
        KeyCommand::Disable(arguments) => change(*arguments, KeyChange::Disable).await,
        KeyCommand::Rotate(arguments) => change(*arguments, KeyChange::Rotate).await,
        KeyCommand::CancelDeletion(arguments) => {
            change(*arguments, KeyChange::CancelDeletion).await
        }
        KeyCommand::Delete(arguments) => delete(*arguments).await,
        KeyCommand::Tag(arguments) => {
            let client = arguments.server.connect()?;
            let tags = no_repeats(arguments.tags)?;
            print(&client.tag(&arguments.key, &tags).await?, arguments.output)
        }
        KeyCommand::Untag(arguments) => {
            let client = arguments.server.connect()?;
            let key = client.untag(&arguments.key, &arguments.names).await?;
            print(&key, arguments.output)
        }
    }
}

async fn create(arguments: Create) -> anyhow::Result<()> {
    let client = arguments.server.connect()?;
    let tags: BTreeMap<String, String> = no_repeats(arguments.tags)?;
    let new = NewKey {
        id: arguments.key.as_ref(),
        description: arguments.description.as_deref(),
        tags: &tags,
    };
    print(&client.create(&new).await?, arguments.output)
}

async fn change(arguments: OneKey, change: KeyChange) -> anyhow::Result<()> {
    let client = arguments.server.connect()?;
    print(
        &client.change(&arguments.key, change).await?,
        arguments.output,
    )
}

async fn delete(arguments: Delete) -> anyhow::Result<()> {
    let client = arguments.server.connect()?;
    let when = match &arguments.confirm {
        Some(confirm) if confirm != arguments.key.as_str() => {
            return Err(usage("--confirm must repeat the key's id"));
        }
        Some(_) => DeleteWhen::Now,
        None => DeleteWhen::After(arguments.days),
    };
    let deletion = client.delete(&arguments.key, when).await?;
    match arguments.output {
        Output::Json => printing::json(&deletion, 0)?,
        Output::Text => {
            let id = shown(&deletion.key_id);
            match &deletion.deletion_date {
                Some(date) => {
                    printing::line(&format!("{id} will be destroyed at {}", shown(date)))?
                }
                None => printing::line(&format!("{id} is destroyed"))?,
            }
            for reference in &deletion.references {
                printing::line(&format!("{id} is still in use: {}", shown(reference)))?;
            }
        }
    }
    Ok(())
}

/// Lists the keys page by page, so that a long list is neither waited for nor kept in memory.
async fn list(arguments: List) -> anyhow::Result<()> {
    let client = arguments.server.connect()?;
    let state = arguments.state.map(Into::into);
    let mut listing = Listing::new(arguments.output);
    let mut marker = None;
    loop {
        let page = page(&client, &arguments.prefix, state, marker.as_deref()).await?;
        listing.add(&page.keys)?;
        // A server that gives out the same place twice would be asked for ever.
        if page.next.is_none() || page.next == marker {
            return Ok(listing.end()?);
        }
        marker = page.next;
    }
}

async fn page(
    client: &Client,
    prefix: &str,
    state: Option<keyway_client::KeyState>,
    marker: Option<&str>,
) -> anyhow::Result<keyway_client::KeyPage> {
    Ok(client.keys(prefix, state, marker).await?)
}

/// Prints a list of keys that comes in pages.
struct Listing {
    output: Output,
    table: Table<5>,
    /// How many keys were printed.
    count: usize,
}

impl Listing {
    const fn new(output: Output) -> Self {
        Self {
            output,
            table: Table::new(["KEY", "STATE", "VERSION", "CREATED", "DESCRIPTION"]),
            count: 0,
        }
    }

    fn add(&mut self, keys: &[Key]) -> anyhow::Result<()> {
        match self.output {
            Output::Text if keys.is_empty() => {}
            Output::Text => {
                let rows: Vec<_> = keys.iter().map(row).collect();
                self.table.rows(&rows)?;
            }
            Output::Json => {
                let mut text = String::new();
                for key in keys {
                    text.push(if self.count == 0 { '[' } else { ',' });
                    text.push_str(&serde_json::to_string(key)?);
                    self.count += 1;
                }
                printing::write(text.as_bytes())?;
            }
        }
        Ok(())
    }

    fn end(self) -> io::Result<()> {
        match (self.output, self.count) {
            (Output::Json, 0) => printing::line("[]"),
            (Output::Json, _) => printing::line("]"),
            (Output::Text, _) => Ok(()),
        }
    }
}

fn row(key: &Key) -> [String; 5] {
    let text = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), shown);
    [
        shown(&key.key_id),
        text(&key.state),
        key.version
            .map_or_else(|| "-".to_owned(), |version| version.to_string()),
        text(&key.created_at),
        key.description.as_deref().map(shown).unwrap_or_default(),
    ]
}

fn print(key: &Key, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => printing::json(key, 0),
        Output::Text => {
            let text = |value: &Option<String>| value.as_deref().map(shown);
            let tags: Vec<String> = (key.tags.iter())
                .map(|(name, value)| format!("{}={}", shown(name), shown(value)))
                .collect();
            let values = [
                ("key", Some(shown(&key.key_id))),
                ("state", text(&key.state)),
                ("version", key.version.map(|version| version.to_string())),
                ("description", text(&key.description)),
                ("usage", text(&key.usage)),
                ("algorithm", text(&key.algorithm)),
                ("created", text(&key.created_at)),
                ("created by", text(&key.created_by)),
                ("rotated", text(&key.rotated_at)),
                ("deletion", text(&key.deletion_date)),
                ("origin", text(&key.origin)),
                ("tags", (!tags.is_empty()).then(|| tags.join(" "))),
            ];
            let pairs: Vec<_> = values
                .iter()
                .map(|(name, value)| (*name, value.as_deref()))
                .collect();
            Ok(printing::fields(&pairs)?)
        }
    }
}
