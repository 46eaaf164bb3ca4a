//! Names and patterns at the end of a path.

use http::HeaderMap;
use http::header::ACCEPT;
use keyway_domain::identity::{Identity, PolicyName, is_kes_name};
use keyway_domain::keys::KeyId;
use keyway_domain::paths::{PathPattern, PatternKind};

use crate::generation::Kind;
use crate::{ErrorResponse, error_response};

/// The longest name or pattern that a message repeats in full, in characters.
const LONGEST_ECHO: usize = 1024;

fn unfit(kind: Kind, text: &str) -> ErrorResponse {
    let shown = match text.char_indices().nth(LONGEST_ECHO) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    };
    error_response::name(kind, shown)
}

/// Parses the name of a key.
pub(crate) fn key(text: &str) -> Result<KeyId, ErrorResponse> {
    let key = is_kes_name(text).then(|| KeyId::parse("name", text).ok());
    key.flatten().ok_or_else(|| unfit(Kind::Key, text))
}

/// Parses the name of a policy.
pub(crate) fn policy(text: &str) -> Result<PolicyName, ErrorResponse> {
    PolicyName::parse(text).map_err(|_| unfit(Kind::Policy, text))
}

/// Parses an identity.
pub(crate) fn identity(text: &str) -> Result<Identity, ErrorResponse> {
    Identity::parse(text).map_err(|_| unfit(Kind::Identity, text))
}

/// A listing's parameter: `PREFIX` or `PATTERN`, then perhaps `~LAST`, the name after which to continue. No name has a
/// `~`, and policies still match the part before it.
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

    /// The beginning that all listed names have.
    pub(crate) fn prefix(&self) -> String {
        self.pattern.literal_prefix()
    }

    /// Whether the listing includes this name. Names that KES does not allow are left out.
    pub(crate) fn wants(&self, name: &str) -> bool {
        is_kes_name(name) && self.pattern.matches(name)
    }

    /// The name after which to continue.
    pub(crate) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The parameter that lists what comes after this name.
    pub(crate) fn continue_at(&self, last: &str) -> String {
        format!("{}{GO_ON}{last}", self.text)
    }

    /// The shape of the answer: `fixed`, or what the request asks for.
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

/// The shapes of listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One JSON object with up to [`PAGE`] names, and where to continue.
    Page,
    /// One line of JSON for each item, without a limit.
    Lines,
    /// The shape for the oldest clients, without a limit.
    Whole,
}

/// The most items in a page.
pub(crate) const PAGE: usize = 1000;

impl Shape {
    /// The most items in an answer of this shape.
    pub(crate) fn limit(self) -> usize {
        match self {
            Self::Page => PAGE,
            Self::Lines | Self::Whole => usize::MAX,
        }
    }
}
