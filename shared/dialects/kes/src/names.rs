//! Names and patterns in the last part of a path.

use http::HeaderMap;
use http::header::ACCEPT;
use keyway_domain::identity::{Identity, PolicyName, is_kes_name};
use keyway_domain::keys::KeyId;
use keyway_domain::paths::{PathPattern, PatternKind};

use crate::generation::Kind;
use crate::{ErrorResponse, error_response};

/// The longest name or pattern that a refusal repeats whole, in characters.
const LONGEST_ECHO: usize = 1024;

fn unfit(kind: Kind, text: &str) -> ErrorResponse {
    let shown = match text.char_indices().nth(LONGEST_ECHO) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    };
    error_response::name(kind, shown)
}

/// The key of this name.
pub(crate) fn key(text: &str) -> Result<KeyId, ErrorResponse> {
    let key = is_kes_name(text).then(|| KeyId::parse("name", text).ok());
    key.flatten().ok_or_else(|| unfit(Kind::Key, text))
}

/// The policy of this name.
pub(crate) fn policy(text: &str) -> Result<PolicyName, ErrorResponse> {
    PolicyName::parse(text).map_err(|_| unfit(Kind::Policy, text))
}

/// The identity of this name.
pub(crate) fn identity(text: &str) -> Result<Identity, ErrorResponse> {
    Identity::parse(text).map_err(|_| unfit(Kind::Identity, text))
}

/// What a listing asks for: `PREFIX` or `PATTERN`, and where to go on as `~LAST` behind it. The mark is no character
/// of a name, and what is before it stays what policies speak of.
pub(crate) struct Listing {
    text: String,
    pattern: PathPattern,
    is_wild: bool,
    after: Option<String>,
}

const GO_ON: char = '~';
const LONGEST_PATTERN: usize = 80;

impl Listing {
    pub(crate) fn parse(text: &str) -> Result<Self, ErrorResponse> {
        let refusal = || error_response::pattern(text.chars().take(LONGEST_ECHO).collect());
        let (pattern, after) = match text.split_once(GO_ON) {
            Some((pattern, after)) if is_kes_name(after) => (pattern, Some(after)),
            Some(_) => return Err(refusal()),
            None => (text, None),
        };
        let is_wild = pattern.contains(['*', '?', '[']);
        let fits = |byte: u8| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'_' | b'-')
                || (is_wild && matches!(byte, b'*' | b'?' | b'[' | b']' | b'^'))
        };
        if pattern.len() > LONGEST_PATTERN || !pattern.bytes().all(fits) {
            return Err(refusal());
        }
        let parsed = if is_wild {
            PathPattern::parse(pattern)
        } else {
            PathPattern::parse(&format!("{pattern}*"))
        };
        if parsed.kind() == PatternKind::Malformed {
            return Err(refusal());
        }
        Ok(Self {
            text: pattern.to_owned(),
            pattern: parsed,
            is_wild,
            after: after.map(str::to_owned),
        })
    }

    /// What every name begins with that it asks for.
    pub(crate) fn prefix(&self) -> String {
        self.pattern.literal_prefix()
    }

    /// Whether it asks for this name. Names that KES does not have are not listed.
    pub(crate) fn wants(&self, name: &str) -> bool {
        is_kes_name(name) && self.pattern.matches(name)
    }

    /// Where to go on.
    pub(crate) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// What asks for what comes behind this name.
    pub(crate) fn continue_at(&self, last: &str) -> String {
        format!("{}{GO_ON}{last}", self.text)
    }

    /// What shape the answer has, where it is not `fixed`.
    pub(crate) fn shape(&self, fixed: Option<Shape>, headers: &HeaderMap) -> Shape {
        if let Some(fixed) = fixed {
            return fixed;
        }
        let mut accepted = headers.get_all(ACCEPT).into_iter().peekable();
        let is_silent = accepted.peek().is_none();
        let accepts = |kind: &str| {
            headers.get_all(ACCEPT).into_iter().any(|value| {
                value
                    .to_str()
                    .is_ok_and(|value| value.to_ascii_lowercase().contains(kind))
            })
        };
        if !self.is_wild || accepts("application/json") {
            Shape::Page
        } else if is_silent || accepts("application/x-ndjson") {
            Shape::Lines
        } else {
            Shape::Whole
        }
    }
}

/// The shapes in which listings are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One JSON object with some of them, and where to go on.
    Page,
    /// A line of JSON for each, all of them.
    Lines,
    /// What the oldest clients read; all of them.
    Whole,
}

/// How many a page has at most.
pub(crate) const PAGE: usize = 1000;

impl Shape {
    /// How many an answer of this shape has at most.
    pub(crate) fn limit(self) -> usize {
        match self {
            Self::Page => PAGE,
            Self::Lines | Self::Whole => usize::MAX,
        }
    }
}
