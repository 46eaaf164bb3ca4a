//! Path patterns of KES's policies and lists, compiled: a policy of a thousand rules costs a request microseconds.
//!
//! - A pattern that ends in `*` and has no other wildcard is a **prefix**, which crosses `/`.
//! - Any other pattern with `*`, `?` or `[` is a **glob** of Go's `path.Match`: `*` is any run of characters except
//!   `/`, `?` any character except `/`, `[a-z]` and `[^a-z]` are classes, and `\` escapes a wildcard. A malformed glob
//!   matches nothing.
//! - Everything else is **exact**.
//!
//! Exact patterns are looked up by hash. Prefixes are sorted, without those that another prefix covers, so only the
//! greatest prefix that does not sort after the path can match it. Globs share a trie, and a path follows all its
//! branches at once: the cost depends on how many globs still match, not on how many there are.

use std::collections::HashSet;

/// The kinds of patterns, for explanations to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternKind {
    /// Matches itself.
    Exact,
    /// Matches everything that begins with it.
    Prefix,
    /// Matches as Go's `path.Match`.
    Glob,
    /// A glob that Go's `path.Match` calls malformed. It matches nothing.
    Malformed,
}

/// One pattern.
#[derive(Debug, Clone)]
pub struct PathPattern(Matcher);

#[derive(Debug, Clone)]
enum Matcher {
    Exact(Box<str>),
    Prefix(Box<str>),
    Glob(Glob),
    Never,
}

impl PathPattern {
    /// Parses a pattern. Every text is a valid pattern.
    pub fn parse(text: &str) -> Self {
        let wildcard = |text: &str| text.contains(['*', '?', '[']);
        Self(match text.strip_suffix('*') {
            Some(prefix) if !wildcard(prefix) => Matcher::Prefix(prefix.into()),
            _ if wildcard(text) => Glob::parse(text).map_or(Matcher::Never, Matcher::Glob),
            _ => Matcher::Exact(text.into()),
        })
    }

    /// The pattern's kind.
    pub fn kind(&self) -> PatternKind {
        match &self.0 {
            Matcher::Exact(_) => PatternKind::Exact,
            Matcher::Prefix(_) => PatternKind::Prefix,
            Matcher::Glob(_) => PatternKind::Glob,
            Matcher::Never => PatternKind::Malformed,
        }
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &str) -> bool {
        match &self.0 {
            Matcher::Exact(exact) => **exact == *text,
            Matcher::Prefix(prefix) => text.starts_with(&**prefix),
            Matcher::Glob(glob) => glob.matches(text),
            Matcher::Never => false,
        }
    }

    /// The text that every match begins with.
    pub fn literal_prefix(&self) -> String {
        match &self.0 {
            Matcher::Exact(text) | Matcher::Prefix(text) => text.to_string(),
            Matcher::Glob(glob) => glob
                .0
                .iter()
                .map_while(|token| match token {
                    Token::Char(c) => Some(*c),
                    _ => None,
                })
                .collect(),
            Matcher::Never => String::new(),
        }
    }
}

/// A token of a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// Any one character except `/`.
    Any,
    Class(Class),
    /// Any run of characters without `/`.
    Star,
}

/// One character of a set. As in Go, it may be `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    negated: bool,
    ranges: Box<[(char, char)]>,
}

impl Class {
    fn has(&self, c: char) -> bool {
        let within = self.ranges.iter().any(|&(low, high)| low <= c && c <= high);
        within != self.negated
    }
}

impl Token {
    /// Whether the token matches this character.
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::Any => c != '/',
            Self::Class(class) => class.has(c),
            Self::Star => false,
        }
    }
}

/// A well-formed glob. Several stars in a row become one.
#[derive(Debug, Clone)]
struct Glob(Box<[Token]>);

impl Glob {
    fn parse(text: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            tokens.push(match c {
                '*' if tokens.last() == Some(&Token::Star) => continue,
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => Token::Char(rest.next()?),
                '[' => Token::Class(class(&mut rest)?),
                c => Token::Char(c),
            });
        }
        Some(Self(tokens.into()))
    }

    /// As in Go: continues after the first place where the tokens between two stars match. That finds every match,
    /// unless a class matched a `/`, which a star cannot cross. Then a text that should match may not, in Go and here.
    fn matches(&self, text: &str) -> bool {
        let mut tokens: &[Token] = &self.0;
        let mut text = text;
        while !tokens.is_empty() {
            let star = tokens.first() == Some(&Token::Star);
            let after_star = tokens.get(usize::from(star)..).unwrap_or_default();
            let length = after_star
                .iter()
                .position(|token| *token == Token::Star)
                .unwrap_or(after_star.len());
            let (chunk, following) = after_star.split_at_checked(length).unwrap_or_default();
            if star && chunk.is_empty() {
                return !text.contains('/');
            }
            let mut from = text;
            let left = loop {
                if let Some(left) = chunk_at(chunk, from)
                    && (left.is_empty() || !following.is_empty())
                {
                    break left;
                }
                // Extend the star by one character.
                let mut rest = from.chars();
                match rest.next() {
                    Some(c) if star && c != '/' => from = rest.as_str(),
                    _ => return false,
                }
            };
            text = left;
            tokens = following;
        }
        text.is_empty()
    }

    /// Whether following all branches at once finds more matches than Go. Then only [`Glob::matches`] is exact.
    fn is_awkward(&self) -> bool {
        let takes_slash = |token: &Token| matches!(token, Token::Class(class) if class.has('/'));
        self.0.contains(&Token::Star) && self.0.iter().any(takes_slash)
    }
}

/// The rest of the text after the chunk, which has no star; `None` if the chunk does not match.
fn chunk_at<'t>(chunk: &[Token], text: &'t str) -> Option<&'t str> {
    let mut rest = text.chars();
    for token in chunk {
        if !token.takes(rest.next()?) {
            return None;
        }
    }
    Some(rest.as_str())
}

/// Parses a class after its `[`; `None` when it is malformed.
fn class(rest: &mut std::str::Chars<'_>) -> Option<Class> {
    let negated = rest.as_str().starts_with('^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        if rest.as_str().starts_with(']') && !ranges.is_empty() {
            rest.next();
            return Some(Class {
                negated,
                ranges: ranges.into(),
            });
        }
        let low = class_char(rest)?;
        let high = if rest.as_str().starts_with('-') {
            rest.next();
            class_char(rest)?
        } else {
            low
        };
        ranges.push((low, high));
    }
}

/// A bound of a class. Another character must follow it, at least the `]`.
fn class_char(rest: &mut std::str::Chars<'_>) -> Option<char> {
    let c = match rest.next()? {
        '-' | ']' => return None,
        '\\' => rest.next()?,
        c => c,
    };
    (!rest.as_str().is_empty()).then_some(c)
}

/// Many patterns, compiled to be matched at once.
#[derive(Debug, Default)]
pub(crate) struct PathSet {
    exact: HashSet<Box<str>>,
    /// Sorted; no prefix begins with another one.
    prefixes: Vec<Box<str>>,
    globs: Trie,
}

impl PathSet {
    pub(crate) fn compile<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Self {
        let mut set = Self::default();
        for pattern in patterns {
            match PathPattern::parse(pattern).0 {
                Matcher::Exact(text) => drop(set.exact.insert(text)),
                Matcher::Prefix(text) => set.prefixes.push(text),
                Matcher::Glob(glob) => set.globs.insert(glob),
                Matcher::Never => {}
            }
        }
        set.prefixes.sort_unstable();
        // The prefixes that a prefix covers sort right behind it.
        set.prefixes
            .dedup_by(|later, earlier| later.starts_with(&**earlier));
        set
    }

    /// Whether any pattern matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        self.exact.contains(path) || self.has_prefix_of(path) || self.globs.matches(path)
    }

    /// Anything that sorts between a prefix of the path and the path begins with that prefix. No other prefix does.
    fn has_prefix_of(&self, path: &str) -> bool {
        let above = self.prefixes.partition_point(|prefix| **prefix <= *path);
        above
            .checked_sub(1)
            .and_then(|last| self.prefixes.get(last))
            .is_some_and(|prefix| path.starts_with(&**prefix))
    }
}

/// Globs with their common beginnings shared. Nodes refer to each other by index. Index 0 is the root; as a reference
/// it means none.
#[derive(Debug, Default)]
struct Trie {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    token: Token,
    first_child: usize,
    next_sibling: usize,
    end: End,
}

/// Whether a glob ends in a node.
#[derive(Debug)]
enum End {
    None,
    /// A path that ends here matches.
    Sure,
    /// A path that ends here may match; this glob decides.
    Perhaps(Glob),
}

impl Node {
    const fn new(token: Token, next_sibling: usize) -> Self {
        Self {
            token,
            first_child: 0,
            next_sibling,
            end: End::None,
        }
    }
}

impl Trie {
    fn insert(&mut self, glob: Glob) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::new(Token::Star, 0));
        }
        let mut at = 0;
        for token in &glob.0 {
            let known = self.children(at).find(|(_, node)| node.token == *token);
            at = match known {
                Some((child, _)) => child,
                None => {
                    let child = self.nodes.len();
                    let first = self.nodes.get(at).map_or(0, |node| node.first_child);
                    self.nodes.push(Node::new(token.clone(), first));
                    if let Some(node) = self.nodes.get_mut(at) {
                        node.first_child = child;
                    }
                    child
                }
            };
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.end = if glob.is_awkward() {
                End::Perhaps(glob)
            } else {
                End::Sure
            };
        }
    }

    fn children(&self, of: usize) -> impl Iterator<Item = (usize, &Node)> {
        let mut next = self.nodes.get(of).map_or(0, |node| node.first_child);
        std::iter::from_fn(move || {
            let at = next;
            let node = self.nodes.get(at).filter(|_| at != 0)?;
            next = node.next_sibling;
            Some((at, node))
        })
    }

    fn matches(&self, path: &str) -> bool {
        if self.nodes.is_empty() {
            return false;
        }
        let (mut active, mut next) = (Vec::new(), Vec::new());
        self.enter(0, &mut active);
        for c in path.chars() {
            for &at in &active {
                let stays = at != 0 && c != '/' && self.is_star(at);
                // A star is entered from its parent only, and may be active already.
                if stays && !next.contains(&at) {
                    next.push(at);
                }
                for (child, node) in self.children(at) {
                    if node.token.takes(c) {
                        self.enter(child, &mut next);
                    }
                }
            }
            if next.is_empty() {
                return false;
            }
            std::mem::swap(&mut active, &mut next);
            next.clear();
        }
        active
            .iter()
            .filter_map(|&at| self.nodes.get(at))
            .any(|node| match &node.end {
                End::None => false,
                End::Sure => true,
                End::Perhaps(glob) => glob.matches(path),
            })
    }

    fn is_star(&self, at: usize) -> bool {
        self.nodes
            .get(at)
            .is_some_and(|node| node.token == Token::Star)
    }

    /// Also enters a star that follows, because a star can match nothing.
    fn enter(&self, at: usize, active: &mut Vec<usize>) {
        active.push(at);
        let star = self
            .children(at)
            .find(|(_, node)| node.token == Token::Star);
        if let Some((star, _)) = star
            && !active.contains(&star)
        {
            active.push(star);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn go(pattern: &str, text: &str) -> Option<bool> {
        Some(Glob::parse(pattern)?.matches(text))
    }

    /// The promises of Go's documentation of `path.Match`, and the known behaviour of its implementation.
    #[test]
    fn globs_match_as_go_does() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*", "", true),
            ("**", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("*x", "xxx", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("a[^a][^a][^a]b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            // A class may match a slash, and the rest does not find another way then.
            ("a[^a]b", "a/b", true),
            ("*[^x]*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("[x\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("[\\-x]", "x", true),
            ("[\\-x]", "-", true),
            ("[\\-x]", "a", false),
            ("/v1/key/*/*", "/v1/key/create/a", true),
            ("/v1/key/*/*", "/v1/key/bulk/decrypt/a", false),
            ("/v1/key/*/minio-*", "/v1/key/generate/minio-1", true),
        ] {
            assert_eq!(go(pattern, text), Some(expected), "{pattern} on {text}");
            let set = PathSet::compile([pattern]);
            if PathPattern::parse(pattern).kind() == PatternKind::Glob {
                assert_eq!(set.matches(text), expected, "{pattern} on {text}, compiled");
            }
        }
        for malformed in [
            "[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "a/b[", "*[",
            "[a", "[a-", "[\\", "*\\", "[]",
        ] {
            assert_eq!(go(malformed, "a"), None, "{malformed}");
        }
    }

    #[test]
    fn star_alone_at_the_end_crosses_slashes() {
        let matches = |pattern: &str, path: &str| {
            let (one, set) = (PathPattern::parse(pattern), PathSet::compile([pattern]));
            assert_eq!(one.matches(path), set.matches(path), "{pattern} on {path}");
            one.matches(path)
        };
        assert!(matches("/v1/key/*", "/v1/key/create/my-key"));
        assert!(matches("*", "/v1/key/create/my-key"));
        assert!(matches("/v1/key/create/my-key*", "/v1/key/create/my-key"));
        assert!(!matches("/v1/key/create/my-key*", "/v1/key/create/my-ke"));
        assert!(!matches("/v1/key/**", "/v1/key/create/my-key"));
        assert!(!matches("/v1/*/create*", "/v1/key/create/my-key"));
        assert!(matches("/v1/key/create/my-key", "/v1/key/create/my-key"));
        assert!(!matches("/v1/key/create/my-key", "/v1/key/create/my-key2"));
        assert!(!matches("", "/v1/key/create/my-key"));
        assert!(!matches("/v1/key/[", "/v1/key/["), "malformed");
        assert!(matches("/a\\b", "/a\\b"), "no wildcard, no escape");
        assert_eq!(PathPattern::parse("a[b").kind(), PatternKind::Malformed);
        assert_eq!(PathPattern::parse("app-?x").literal_prefix(), "app-");
        assert_eq!(PathPattern::parse("app-*").literal_prefix(), "app-");
    }

    /// Follows the definition by trying every possibility.
    fn reference(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', rest @ ..] => {
                reference(rest, text)
                    || matches!(text, [c, left @ ..] if *c != '/' && reference(pattern, left))
            }
            ['?', rest @ ..] => {
                matches!(text, [c, left @ ..] if *c != '/' && reference(rest, left))
            }
            ['[', low, '-', high, ']', rest @ ..] => {
                matches!(text, [c, left @ ..] if (*low..=*high).contains(c) && reference(rest, left))
            }
            [p, rest @ ..] => matches!(text, [c, left @ ..] if c == p && reference(rest, left)),
        }
    }

    fn defined(pattern: &str, text: &str) -> bool {
        match pattern.strip_suffix('*') {
            Some(prefix) if !prefix.contains(['*', '?', '[']) => text.starts_with(prefix),
            _ => {
                let chars = |text: &str| text.chars().collect::<Vec<_>>();
                reference(&chars(pattern), &chars(text))
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn patterns_match_together_what_each_matches_alone(
            patterns in proptest::collection::vec("(/|a|b|\\*|\\?|\\[a-b\\]|é){0,8}", 0..12),
            texts in proptest::collection::vec("[/abcé]{0,8}", 1..6),
        ) {
            let set = PathSet::compile(patterns.iter().map(String::as_str));
            for text in &texts {
                let wanted = patterns.iter().any(|pattern| defined(pattern, text));
                prop_assert_eq!(set.matches(text), wanted, "{:?} on {}", &patterns, text);
                for pattern in &patterns {
                    let matched = PathPattern::parse(pattern).matches(text);
                    prop_assert_eq!(matched, defined(pattern, text), "{} on {}", pattern, text);
                }
            }
        }

        #[test]
        fn any_pattern_does_not_panic(pattern in ".{0,20}", text in ".{0,20}") {
            let one = PathPattern::parse(&pattern).matches(&text);
            prop_assert_eq!(PathSet::compile([pattern.as_str()]).matches(&text), one);
        }

        #[test]
        fn unusual_classes_match_alike_alone_and_together(
            pattern in "(/|a|\\*|\\?|\\[\\^a\\]|\\[/-b\\]){0,8}", text in "[/abc]{0,8}",
        ) {
            let one = PathPattern::parse(&pattern).matches(&text);
            prop_assert_eq!(PathSet::compile([pattern.as_str(), "/x*y"]).matches(&text), one);
        }
    }
}
