//! Parses the command line with the settings file beneath it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, Error};

use crate::FILE_OPTION;
use crate::file::{self, Setting};
use crate::mistake::Mistake;
use crate::option::{check, key};

/// A program that takes settings from a file.
pub struct Program<'a> {
    /// Its command line, with the variables of this process.
    pub command: Command,
    /// The command whose options may stand in the file.
    pub owner: &'a str,
    /// Variables that hold secrets, which must not stand in the file.
    pub secrets: &'a [&'a str],
    /// Reads a variable of this process.
    pub variable: &'a dyn Fn(&OsStr) -> Option<OsString>,
}

/// Where the value of an option comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An argument.
    CommandLine,
    /// This variable.
    Variable(String),
    /// This line of the settings file.
    File(PathBuf, usize),
    /// The option's default, or none.
    Default,
}

/// An option of the command, with the value that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The option's long name, which is its key in the file.
    pub key: String,
    /// Its values; empty if there is none.
    pub values: Vec<String>,
    /// Where they come from.
    pub origin: Origin,
}

/// A command line that was parsed together with variables and the settings file.
pub struct Parsed {
    /// What was parsed; without the settings that are mistaken.
    pub matches: ArgMatches,
    /// The settings file, if one is named.
    pub file: Option<PathBuf>,
    /// The mistakes in the file and in variables. With one, nothing must run.
    pub mistakes: Vec<Mistake>,
    /// The options of the command that can stand in the file.
    pub in_force: Vec<InForce>,
}

impl Program<'_> {
    /// Parses these arguments; the first one is the program's name.
    ///
    /// # Errors
    /// When the arguments are wrong, or ask for help.
    pub fn parse(mut self, arguments: Vec<OsString>) -> Result<Parsed, Error> {
        let given = match Given::of(&self.command, &arguments) {
            Ok(given) => given,
            // The help that names the variables.
            Err(error) => {
                let asked = self.command.try_get_matches_from(arguments);
                return Err(asked.err().unwrap_or(error));
            }
        };
        let mut mistakes = Vec::new();
        let mut variables = BTreeMap::new();
        let (mut path, mut wrong) = (given.file(), Vec::new());
        for option in self.options_of(&given.names) {
            let id = option.get_id().to_string();
            let Some(name) = option.get_env().filter(|_| !given.has(&id)) else {
                continue;
            };
            let Some(value) = (self.variable)(name) else {
                continue;
            };
            let name = name.to_string_lossy().into_owned();
            if let Err(text) = check(option, &[&value]) {
                mistakes.push(Mistake::of_variable(name, text));
                wrong.push(id);
                continue;
            }
            if id == FILE_OPTION {
                path = Some(PathBuf::from(value));
            }
            variables.insert(id, name);
        }
        self.command = at(self.command, &given.names, &|command| {
            let is_wrong = |option: &Arg| wrong.iter().any(|id| option.get_id() == id.as_str());
            command.mut_args(|option| match is_wrong(&option) {
                true => option.env(Resettable::Reset),
                false => option,
            })
        });
        let mut settings = Vec::new();
        if let Some(path) = &path {
            let (found, wrong) = file::read(path, &self.owner_options(), self.secrets);
            mistakes.extend(wrong);
            let own = self.options_of(&given.names);
            settings = found;
            settings.retain(|setting| {
                let is_own = own
                    .iter()
                    .any(|option| option.get_id() == setting.id.as_str());
                is_own && !given.has(&setting.id) && !variables.contains_key(&setting.id)
            });
        }
        let beneath = Beneath {
            program: &self,
            given: &given,
            arguments,
            variables,
            path,
        };
        beneath.parse(settings, mistakes)
    }

    fn owner_options(&self) -> Vec<Arg> {
        let owner = self.command.find_subcommand(self.owner);
        let options = owner.into_iter().flat_map(Command::get_arguments);
        options
            .filter(|option| key(option).is_some())
            .cloned()
            .collect()
    }

    fn options_of(&self, names: &[String]) -> Vec<&Arg> {
        let mut command = Some(&self.command);
        for name in names {
            command = command.and_then(|command| command.find_subcommand(name));
        }
        command
            .into_iter()
            .flat_map(Command::get_arguments)
            .collect()
    }
}

/// Changes the command that these names lead to.
fn at(command: Command, names: &[String], change: &dyn Fn(Command) -> Command) -> Command {
    match names {
        [] => change(command),
        [name, rest @ ..] => command.mut_subcommand(name, |command| at(command, rest, change)),
    }
}

/// What the arguments alone say.
struct Given {
    /// The command's names, such as `access-key` and `list`.
    names: Vec<String>,
    matches: ArgMatches,
}

impl Given {
    /// Errors of arguments are left to the parser that also sees the file, except for a request for help, which is one.
    fn of(command: &Command, arguments: &[OsString]) -> Result<Self, Error> {
        let without = without_variables(command.clone()).ignore_errors(true);
        let mut matches = without.try_get_matches_from(arguments)?;
        let mut names = Vec::new();
        while let Some((name, below)) = matches.remove_subcommand() {
            names.push(name);
            matches = below;
        }
        Ok(Self { names, matches })
    }

    fn has(&self, id: &str) -> bool {
        let is_known = self.matches.ids().any(|known| known == id);
        is_known && self.matches.value_source(id) == Some(ValueSource::CommandLine)
    }

    fn file(&self) -> Option<PathBuf> {
        let file = self.matches.try_get_one::<PathBuf>(FILE_OPTION);
        file.ok().flatten().cloned()
    }
}

/// What an error says of the options that it is about.
const NAMED: [ContextKind; 2] = [ContextKind::InvalidArg, ContextKind::PriorArg];

fn is_same(one: &Error, other: &Error) -> bool {
    one.kind() == other.kind() && NAMED.iter().all(|kind| one.get(*kind) == other.get(*kind))
}

fn without_variables(command: Command) -> Command {
    command
        .mut_args(|option| option.env(Resettable::Reset))
        .mut_subcommands(without_variables)
}

/// The settings file beneath arguments and variables.
struct Beneath<'a> {
    program: &'a Program<'a>,
    given: &'a Given,
    arguments: Vec<OsString>,
    /// The variables that are in force, by the options' ids.
    variables: BTreeMap<String, String>,
    path: Option<PathBuf>,
}

impl Beneath<'_> {
    /// Leaves out the settings that do not go together with others, until the rest is valid.
    fn parse(
        self,
        mut settings: Vec<Setting>,
        mut mistakes: Vec<Mistake>,
    ) -> Result<Parsed, Error> {
        let matches = loop {
            let error = match self.with(&settings) {
                Ok(matches) => break matches,
                Err(error) => error,
            };
            let Some(place) = self.cause(&settings, &error) else {
                return Err(error);
            };
            let setting = settings.remove(place);
            mistakes.push(Mistake {
                file: self.path.clone(),
                line: Some(setting.line),
                text: self.relation(&error, &setting, &settings),
                name: Some(setting.key),
            });
        };
        mistakes.sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
        Ok(Parsed {
            in_force: self.in_force(&matches, &settings),
            matches,
            file: self.path,
            mistakes,
        })
    }

    /// Parses the arguments with these settings among them, behind the command's names: relations between options hold
    /// for defaults less than for arguments.
    fn with(&self, settings: &[Setting]) -> Result<ArgMatches, Error> {
        let behind = (self.given.names.len() + 1).min(self.arguments.len());
        let (names, rest) = self.arguments.split_at(behind);
        let settings = settings.iter().flat_map(|setting| {
            let argument = |value| OsString::from(format!("--{}={value}", setting.key));
            setting.values.iter().map(argument)
        });
        let arguments = names
            .iter()
            .cloned()
            .chain(settings)
            .chain(rest.iter().cloned());
        let command = self.program.command.clone();
        command.try_get_matches_from(arguments)
    }

    /// The first setting without which this error of a relation between options does not occur.
    fn cause(&self, settings: &[Setting], error: &Error) -> Option<usize> {
        let (ErrorKind::ArgumentConflict | ErrorKind::MissingRequiredArgument) = error.kind()
        else {
            return None;
        };
        let occurs = |settings: &[Setting]| {
            let parsed = self.with(settings);
            parsed.is_err_and(|other| is_same(&other, error))
        };
        let cures = |place: &usize| {
            let mut others = settings.to_vec();
            others.remove(*place);
            !occurs(&others)
        };
        // Where several settings have the same mistake, it begins with the first of them.
        let begins = |place: &usize| settings.get(..=*place).is_some_and(&occurs);
        (0..settings.len()).find(cures).or_else(|| {
            let begin = (0..settings.len()).find(begins);
            begin.filter(|_| !occurs(&[]))
        })
    }

    /// How the setting does not go together with other options.
    fn relation(&self, error: &Error, setting: &Setting, settings: &[Setting]) -> String {
        let own = format!("--{}", setting.key);
        let named = NAMED.into_iter().filter_map(|kind| error.get(kind));
        let named = named.flat_map(|value| match value {
            ContextValue::String(one) => vec![one.clone()],
            ContextValue::Strings(several) => several.clone(),
            _ => Vec::new(),
        });
        // `--table <NAME>`, or `<--table <NAME>|--postgres <URL>>` for a choice.
        let choices = |named: String| -> Vec<String> {
            let choices = named.trim_start_matches('<').split('|');
            let names = choices.filter_map(|choice| choice.split_whitespace().next());
            names.map(str::to_owned).collect()
        };
        let placed = |option: String| match self.place(&option, settings) {
            Some(place) => format!("{option} ({place})"),
            None => option,
        };
        let others: Vec<String> = named
            .map(choices)
            .filter(|options| !options.contains(&own))
            .map(|options| {
                options
                    .into_iter()
                    .map(placed)
                    .collect::<Vec<_>>()
                    .join(" or ")
            })
            .collect();
        let others = others.join(" and ");
        match error.kind() {
            ErrorKind::ArgumentConflict => format!("does not go together with {others}"),
            ErrorKind::MissingRequiredArgument => format!("needs {others} beside it"),
            kind => kind.to_string(),
        }
    }

    /// Where the option of this name is given.
    fn place(&self, option: &str, settings: &[Setting]) -> Option<String> {
        let options = self.program.options_of(&self.given.names);
        let is_named = |known: &&&Arg| {
            known
                .get_long()
                .is_some_and(|long| option == format!("--{long}"))
        };
        let id = options.iter().find(is_named)?.get_id().as_str();
        if self.given.has(id) {
            return Some("an argument".to_owned());
        }
        if let Some(variable) = self.variables.get(id) {
            return Some(variable.clone());
        }
        let setting = settings.iter().find(|setting| setting.id == id)?;
        Some(format!("line {}", setting.line))
    }

    fn in_force(&self, matches: &ArgMatches, settings: &[Setting]) -> Vec<InForce> {
        let mut of_command = matches;
        while let Some((_, below)) = of_command.subcommand() {
            of_command = below;
        }
        let owned = self.program.owner_options();
        let options = self.program.options_of(&self.given.names);
        options
            .into_iter()
            .filter(|option| owned.iter().any(|own| own.get_id() == option.get_id()))
            .filter_map(|option| Some((key(option)?, option)))
            .map(|(key, option)| {
                let id = option.get_id().as_str();
                let values = of_command.get_raw(id).into_iter().flatten();
                let values = values
                    .map(OsStr::to_string_lossy)
                    .map(|value| value.into_owned());
                InForce {
                    key: key.to_owned(),
                    values: values.filter(|value| !value.is_empty()).collect(),
                    origin: self.origin(id, settings),
                }
            })
            .collect()
    }

    fn origin(&self, id: &str, settings: &[Setting]) -> Origin {
        if self.given.has(id) {
            return Origin::CommandLine;
        }
        if let Some(variable) = self.variables.get(id) {
            return Origin::Variable(variable.clone());
        }
        match (settings.iter().find(|setting| setting.id == id), &self.path) {
            (Some(setting), Some(path)) => Origin::File(Path::to_owned(path), setting.line),
            _ => Origin::Default,
        }
    }
}
