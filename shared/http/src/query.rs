use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The query's names and values, decoded once, in their order.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

/// Why a query or a path segment cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A `%` is not followed by two hexadecimal digits, or the decoded bytes are not UTF-8.
    #[error("is not percent-encoded UTF-8")]
    Encoding,
    /// The query has the parameter more than once.
    #[error("is given more than once")]
    Repeated,
}

/// More than any client sends.
const MAX_PAIRS: usize = 256;

impl Query {
    /// Decodes a raw query. Skips pairs without name and value.
    ///
    /// # Errors
    /// [`QueryError::Encoding`]; [`QueryError::Repeated`] when there are more than 256 pairs.
    pub fn parse(raw: &str) -> Result<Self, QueryError> {
        let mut pairs = Vec::new();
        for pair in raw.split('&').filter(|pair| !matches!(*pair, "" | "=")) {
            if pairs.len() == MAX_PAIRS {
                return Err(QueryError::Repeated);
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((form_decode(name)?, form_decode(value)?));
        }
        Ok(Self(pairs))
    }

    /// The names of all parameters, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The value of the parameter, if the query has it.
    ///
    /// # Errors
    /// [`QueryError::Repeated`] if the query has it more than once: choosing one would be a guess.
    pub fn one(&self, name: &str) -> Result<Option<&str>, QueryError> {
        let mut values = self
            .0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(QueryError::Repeated),
            (value, None) => Ok(value),
        }
    }
}

fn form_decode(text: &str) -> Result<String, QueryError> {
    let spaced: Cow<'_, str> = if text.contains('+') {
        text.replace('+', " ").into()
    } else {
        text.into()
    };
    percent_decode(&spaced).map(Cow::into_owned)
}

/// Decodes percent-encoding once and strictly.
///
/// # Errors
/// [`QueryError::Encoding`].
pub fn percent_decode(text: &str) -> Result<Cow<'_, str>, QueryError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut rest = text.split('%');
    rest.next();
    let whole = |escape: &str| {
        escape
            .as_bytes()
            .get(..2)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !rest.all(whole) {
        return Err(QueryError::Encoding);
    }
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| QueryError::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_decoded_once() {
        let query = Query::parse("a=1%2525&b=x+y&c&&d=%C3%A9").unwrap();
        assert_eq!(query.one("a"), Ok(Some("1%25")));
        assert_eq!(query.one("b"), Ok(Some("x y")));
        assert_eq!(query.one("c"), Ok(Some("")));
        assert_eq!(query.one("d"), Ok(Some("é")));
        assert_eq!(query.one("e"), Ok(None));
    }

    #[test]
    fn ambiguous_query_is_refused() {
        assert_eq!(
            Query::parse("a=1&a=2").unwrap().one("a"),
            Err(QueryError::Repeated)
        );
        for broken in ["a=%", "a=%4", "a=%zz", "a=%ff", "%=1"] {
            assert_eq!(
                Query::parse(broken).unwrap_err(),
                QueryError::Encoding,
                "{broken}"
            );
        }
        assert!(Query::parse(&"a&".repeat(257)).is_err());
    }
}
