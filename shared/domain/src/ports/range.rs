//! The ids of a page, for stores that compare ids by their bytes.

/// Ids from `first` to just before `end`, in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdRange {
    /// The smallest bytes of the range.
    pub first: Vec<u8>,
    /// The smallest bytes past the range. They may be no UTF-8.
    pub end: Vec<u8>,
}

impl IdRange {
    /// The ids that begin with `prefix` and sort after `after`.
    pub fn new(prefix: &str, after: Option<&str>) -> Self {
        // The next possible id is the same one followed by a zero byte.
        let past = after.map(|after| [after.as_bytes(), &[0]].concat());
        let first = past.unwrap_or_default().max(prefix.as_bytes().to_vec());
        // The last byte of UTF-8 is never 0xff, so it has a successor; and 0xff sorts after every id.
        let mut end = prefix.as_bytes().to_vec();
        match end.last_mut() {
            Some(last) => *last = last.saturating_add(1),
            None => end.push(0xff),
        }
        Self { first, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_just_past_their_prefix() {
        let range = |prefix, after| {
            let IdRange { first, end } = IdRange::new(prefix, after);
            (first, end)
        };
        assert_eq!(range("", None), (b"".to_vec(), vec![0xff]));
        assert_eq!(range("ab", None), (b"ab".to_vec(), b"ac".to_vec()));
        assert_eq!(range("ab", Some("aa")), (b"ab".to_vec(), b"ac".to_vec()));
        assert_eq!(range("ab", Some("ab")), (b"ab\0".to_vec(), b"ac".to_vec()));
        assert_eq!(range("ab", Some("b")), (b"b\0".to_vec(), b"ac".to_vec()));
        assert_eq!(range("\u{10FFFF}", None).1, [0xf4, 0x8f, 0xbf, 0xc0]);
    }
}
