//! Patterns of policies and lists: `*` is any run of characters, `?` any character, everything else itself.

/// Whether the whole of `text` matches `pattern`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    matches_by(pattern, text, |a, b| a == b)
}

/// As [`matches`], but ignores the case of ASCII letters, as IAM does for actions.
pub(crate) fn matches_ignoring_case(pattern: &str, text: &str) -> bool {
    matches_by(pattern, text, |a, b| a.eq_ignore_ascii_case(b))
}

/// Backtracks to the last `*` only, so the cost is at most `pattern` times `text`.
fn matches_by(pattern: &str, text: &str, same: impl Fn(&char, &char) -> bool) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    let mut star = None;
    loop {
        let mut rest = pattern.clone();
        match rest.next() {
            Some('*') => {
                star = Some((rest.clone(), text.clone()));
                pattern = rest;
                continue;
            }
            Some(p) => {
                let mut remaining = text.clone();
                if remaining.next().is_some_and(|t| p == '?' || same(&p, &t)) {
                    pattern = rest;
                    text = remaining;
                    continue;
                }
            }
            None if text.as_str().is_empty() => return true,
            None => {}
        }
        // On a mismatch, extend the last star by one character.
        let Some((after, taken)) = &mut star else {
            return false;
        };
        if taken.next().is_none() {
            return false;
        }
        pattern = after.clone();
        text = taken.clone();
    }
}

/// The characters that every match of the pattern begins with.
pub(crate) fn literal_prefix(pattern: &str) -> &str {
    pattern.split(['*', '?']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glob_matches_as_written() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "abc", true),
            ("a*", "abc", true),
            ("a*c", "abc", true),
            ("a*c", "abcd", false),
            ("*b*", "abc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a**c", "ac", true),
            ("*.log", "a.log.log", true),
            ("[a]", "a", false),
            ("é?", "éé", true),
            ("A", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} against {text}");
        }
        assert!(matches_ignoring_case("KMS:desc*", "kms:DescribeKey"));
    }

    #[test]
    fn glob_hostile_costs_little() {
        assert!(!matches(
            &format!("{}b", "a*".repeat(200)),
            &"a".repeat(100_000)
        ));
    }

    #[test]
    fn literal_prefix_ends_at_the_first_wildcard() {
        assert_eq!(literal_prefix("app-*x"), "app-");
        assert_eq!(literal_prefix("app"), "app");
        assert_eq!(literal_prefix("?x"), "");
    }
}
