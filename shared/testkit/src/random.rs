use std::sync::atomic::{AtomicU64, Ordering};

use keyway_domain::ports::{Random, RandomError};

/// **For tests only: anyone can compute every byte of it from its seed.**
///
/// SplitMix64: the same seed gives the same bytes, so that a failing test fails again.
#[derive(Debug)]
pub struct SeededRandom {
    state: AtomicU64,
}

/// SplitMix64's step, 2^64 divided by the golden ratio.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

impl SeededRandom {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            state: AtomicU64::new(seed),
        }
    }

    fn next(&self) -> u64 {
        let mut z = self
            .state
            .fetch_add(STEP, Ordering::Relaxed)
            .wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl Random for SeededRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        for chunk in buffer.chunks_mut(8) {
            for (to, from) in chunk.iter_mut().zip(self.next().to_le_bytes()) {
                *to = from;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_random_gives_splitmix64_and_repeats_it() {
        // First outputs of the reference implementation for the seed 1234567.
        let expected = [6_457_827_717_110_365_317_u64, 3_203_168_211_198_807_973];
        let random = SeededRandom::new(1_234_567);
        let mut buffer = [0; 16];
        random.fill(&mut buffer).unwrap();
        assert_eq!(buffer[..8], expected[0].to_le_bytes());
        assert_eq!(buffer[8..], expected[1].to_le_bytes());

        let mut short = [0; 11];
        SeededRandom::new(1_234_567).fill(&mut short).unwrap();
        assert_eq!(short, buffer[..11]);
    }
}
