//! Shamir's secret sharing of the secret that encrypts a bundle's root keyring.
//!
//! A share is one line: `kwshare1-3of5-2-BUNDLE-SHARE-CHECK`, with the number of shares that are needed, the number that
//! were made, the share's own number, the first eight digits of the bundle's id, the share in hexadecimal digits, and
//! the first eight hexadecimal digits of the SHA-256 of all before.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use blahaj::Sharks;
use keyway_crypto::sha256;
use keyway_domain::ports::{Random, RandomError};
use zeroize::Zeroizing;

const FORMAT: &str = "kwshare1";
/// The length of the drawn secret.
const SECRET_BYTES: usize = 32;
/// How many digits of the bundle's id a share names.
const BUNDLE_DIGITS: usize = 8;

/// How many shares are made, and how many of them are needed: `3/5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareCount {
    /// How many are needed; at least two.
    pub needed: u8,
    /// How many are made.
    pub made: u8,
}

/// Why shares cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// The text is no count of shares.
    #[error("is not NEEDED/MADE, such as 3/5, with at least 2 needed and at most 255 made")]
    Count,
    /// The text is no share.
    #[error("is not a share that keyway made: kwshare1-...")]
    NotAShare,
    /// Some of its characters are wrong.
    #[error("has a mistake: its checksum differs")]
    Mistyped,
    /// The shares are of different backups.
    #[error("the shares are of different backups")]
    Mixed,
    /// The shares are of another backup.
    #[error("the shares are of another backup")]
    Foreign,
    /// There are too few.
    #[error("{given} different shares were given, and {needed} are needed")]
    TooFew {
        /// How many different ones were given.
        given: usize,
        /// How many are needed.
        needed: u8,
    },
}

impl FromStr for ShareCount {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let (needed, made) = text.split_once('/').ok_or(ShareError::Count)?;
        let number = |text: &str| text.parse::<u8>().map_err(|_| ShareError::Count);
        let (needed, made) = (number(needed)?, number(made)?);
        if needed < 2 || made < needed {
            return Err(ShareError::Count);
        }
        Ok(Self { needed, made })
    }
}

/// One share. It has no `Debug` and no `Display`: [`Share::line`] is the one way out.
pub struct Share {
    count: ShareCount,
    bundle: String,
    share: blahaj::Share,
}

impl Share {
    /// The line to be kept.
    pub fn line(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(Vec::from(&self.share));
        let (number, share) = bytes.split_first().map_or((0, &[][..]), |(n, s)| (*n, s));
        let ShareCount { needed, made } = self.count;
        let share = Zeroizing::new(hex::encode(share));
        let mut line = Zeroizing::new(format!(
            "{FORMAT}-{needed}of{made}-{number}-{}-{}",
            self.bundle, *share
        ));
        let check = check(&line);
        line.push('-');
        line.push_str(&check);
        line
    }

    /// Reads a line. Spaces around it and the case of its letters do not matter.
    ///
    /// # Errors
    /// [`ShareError::NotAShare`] or [`ShareError::Mistyped`].
    pub fn parse(line: &str) -> Result<Self, ShareError> {
        let line = Zeroizing::new(line.trim().to_ascii_lowercase());
        let (before, told) = line.rsplit_once('-').ok_or(ShareError::NotAShare)?;
        let mut parts = before.split('-');
        let mut part = || parts.next().ok_or(ShareError::NotAShare);
        if part()? != FORMAT {
            return Err(ShareError::NotAShare);
        }
        if check(before) != told {
            return Err(ShareError::Mistyped);
        }
        let count = part()?.replacen("of", "/", 1);
        let count = count.parse().map_err(|_| ShareError::NotAShare)?;
        let number: u8 = part()?.parse().map_err(|_| ShareError::NotAShare)?;
        let bundle = part()?.to_owned();
        let secret = Zeroizing::new(hex::decode(part()?).map_err(|_| ShareError::NotAShare)?);
        // The share of number 0 would be the secret itself.
        if number == 0 || secret.len() != SECRET_BYTES || parts.next().is_some() {
            return Err(ShareError::NotAShare);
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES + 1));
        bytes.push(number);
        bytes.extend_from_slice(&secret);
        let share = blahaj::Share::try_from(bytes.as_slice());
        Ok(Self {
            count,
            bundle,
            share: share.map_err(|_| ShareError::NotAShare)?,
        })
    }

    fn number(&self) -> u8 {
        Zeroizing::new(Vec::from(&self.share))
            .first()
            .copied()
            .unwrap_or_default()
    }
}

fn check(text: &str) -> String {
    let digest = sha256(&[text.as_bytes()]);
    hex::encode(digest).chars().take(8).collect()
}

fn short(bundle: &str) -> String {
    bundle.chars().take(BUNDLE_DIGITS).collect()
}

/// Draws a secret, and splits it for this bundle. Returns the secret as the text that encrypts, and the shares.
///
/// # Errors
/// When the generator fails.
pub fn split(
    count: ShareCount,
    bundle: &str,
    random: &dyn Random,
) -> Result<(Zeroizing<String>, Vec<Share>), RandomError> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    random.fill(secret.as_mut_slice())?;
    let shares = Sharks(count.needed)
        .dealer(secret.as_slice())
        .take(count.made.into())
        .map(|share| Share {
            count,
            bundle: short(bundle),
            share,
        });
    Ok((as_text(secret.as_slice()), shares.collect()))
}

/// The secret of this bundle that the shares have together, as the text that encrypts.
///
/// # Errors
/// [`ShareError`]. Wrong shares with right checksums give another secret, which opens nothing.
pub fn combine(shares: &[Share], bundle: &str) -> Result<Zeroizing<String>, ShareError> {
    let Some(first) = shares.first() else {
        return Err(ShareError::TooFew {
            given: 0,
            needed: 2,
        });
    };
    let is_like_first = |share: &Share| share.bundle == first.bundle && share.count == first.count;
    if !shares.iter().all(is_like_first) {
        return Err(ShareError::Mixed);
    }
    if first.bundle != short(bundle) {
        return Err(ShareError::Foreign);
    }
    let needed = first.count.needed;
    let distinct: BTreeMap<u8, &Share> =
        shares.iter().map(|share| (share.number(), share)).collect();
    let too_few = ShareError::TooFew {
        given: distinct.len(),
        needed,
    };
    if distinct.len() < usize::from(needed) {
        return Err(too_few);
    }
    let shares = distinct.values().take(needed.into());
    let sharks = Sharks(needed);
    let secret = sharks.recover(shares.map(|share| &share.share));
    let secret = Zeroizing::new(secret.map_err(|_| too_few)?);
    Ok(as_text(&secret))
}

fn as_text(secret: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(hex::encode(secret))
}

impl fmt::Display for ShareCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.needed, self.made)
    }
}
