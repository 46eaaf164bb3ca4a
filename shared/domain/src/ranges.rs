//! The names that a caller may see. A listing reads only these: reading others takes time, which would reveal them.

/// Some names of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameRange {
    /// This one.
    One(String),
    /// All names that begin with this.
    Beginning(String),
}

impl NameRange {
    /// Every name.
    pub(crate) fn all() -> Vec<Self> {
        vec![Self::Beginning(String::new())]
    }

    fn start(&self) -> &str {
        match self {
            Self::One(name) | Self::Beginning(name) => name,
        }
    }

    /// Whether the name is in the range.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Beginning(beginning) => name.starts_with(beginning),
        }
    }

    /// The names of the range that begin with `prefix`; `None` when there can be none.
    pub(crate) fn narrowed(self, prefix: &str) -> Option<Self> {
        match self {
            Self::Beginning(beginning) if prefix.starts_with(&beginning) => {
                Some(Self::Beginning(prefix.to_owned()))
            }
            range => range.start().starts_with(prefix).then_some(range),
        }
    }

    /// Whether all of its names sort before `name`, or equal it.
    pub(crate) fn is_before(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one.as_str() <= name,
            Self::Beginning(beginning) => {
                beginning.as_str() <= name && !name.starts_with(beginning)
            }
        }
    }
}

/// The ranges, sorted by name and without those that another range contains.
pub(crate) fn in_order(mut ranges: Vec<NameRange>) -> Vec<NameRange> {
    // Of two ranges that start alike, a beginning contains the other.
    ranges.sort_by(|a, b| {
        let is_one = |range: &NameRange| matches!(range, NameRange::One(_));
        (a.start(), is_one(a)).cmp(&(b.start(), is_one(b)))
    });
    let mut kept: Vec<NameRange> = Vec::new();
    for range in ranges {
        if !kept.last().is_some_and(|last| last.has(range.start())) {
            kept.push(range);
        }
    }
    kept
}

/// The names that are in a range of `one` and in a range of `other`, in order.
pub(crate) fn in_both(one: &[NameRange], other: &[NameRange]) -> Vec<NameRange> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (a, b)));
    let common = pairs.filter_map(|(a, b)| match (a, b) {
        // If two ranges share a name, one contains the other.
        (NameRange::One(name), range) | (range, NameRange::One(name)) => {
            range.has(name).then(|| NameRange::One(name.clone()))
        }
        (NameRange::Beginning(a), b) => b.clone().narrowed(a),
    });
    in_order(common.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str) -> NameRange {
        NameRange::One(name.to_owned())
    }

    fn beginning(name: &str) -> NameRange {
        NameRange::Beginning(name.to_owned())
    }

    #[test]
    fn ranges_within_others_are_left_out() {
        let ranges = vec![
            one("b"),
            beginning("app-"),
            one("app-x"),
            one("app"),
            beginning("app-old-"),
            beginning("b"),
            one("app"),
        ];
        assert_eq!(
            in_order(ranges),
            [one("app"), beginning("app-"), beginning("b")]
        );
        assert_eq!(in_order(vec![one("z"), beginning("")]), [beginning("")]);
    }

    #[test]
    fn range_is_narrowed_to_a_prefix() {
        for (range, prefix, expected) in [
            (beginning("app-"), "", Some(beginning("app-"))),
            (beginning("app-"), "app", Some(beginning("app-"))),
            (beginning("app-"), "app-x", Some(beginning("app-x"))),
            (beginning("app-"), "b", None),
            (one("app"), "ap", Some(one("app"))),
            (one("app"), "app-", None),
        ] {
            assert_eq!(range.narrowed(prefix), expected, "{prefix}");
        }
    }

    #[test]
    fn range_is_before_a_name_that_sorts_after_all_its_names() {
        for (range, name, expected) in [
            (one("b"), "a", false),
            (one("b"), "b", true),
            (one("b"), "ba", true),
            (beginning("b"), "a", false),
            (beginning("b"), "b", false),
            (beginning("b"), "bz", false),
            (beginning("b"), "c", true),
            (beginning(""), "z", false),
        ] {
            assert_eq!(range.is_before(name), expected, "{range:?} {name}");
        }
    }
}
