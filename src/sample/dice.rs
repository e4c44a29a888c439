//! Reproducible random numbers: the same seed gives the same numbers on every machine and with every version
//! of `rand`.
//!
//! Only the stream of bits comes from a library. The distributions are implemented here, because those of the
//! library may change between versions.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A reproducible random number generator.
#[derive(Debug, Clone)]
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// Creates the generator for `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number in `0..bound`; 0 if `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.0.next_u64()) * u128::from(bound);
        u64::try_from(product >> 64).expect("a product of two u64 has 128 bits")
    }

    /// An index in `0..length`; 0 if `length` is 0.
    pub(super) fn index(&mut self, length: usize) -> usize {
        let bound = u64::try_from(length).expect("lengths fit 64 bits");
        usize::try_from(self.below(bound)).expect("below a usize")
    }

    /// A length in `least..=most`.
    pub(super) fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.index(most - least + 1)
    }

    /// An index in `0..length`, biased to small values: few authors write most events.
    pub(super) fn skewed(&mut self, length: usize) -> usize {
        let bound = self.index(length) + 1;
        self.index(bound)
    }

    /// True with a probability of `chance` percent.
    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// An element of a non-empty list.
    pub(super) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.index(list.len())]
    }

    /// `bytes` random bytes as lower-case hex.
    pub(super) fn hex(&mut self, bytes: usize) -> String {
        let mut buffer = vec![0; bytes];
        self.0.fill_bytes(&mut buffer);
        hex::encode(buffer)
    }

    /// Text of `length` characters from an ASCII alphabet whose size is a power of two.
    pub(super) fn letters(&mut self, length: usize, alphabet: &[u8]) -> String {
        let mut buffer = vec![0; length];
        self.0.fill_bytes(&mut buffer);
        buffer.iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
    }

    /// Base64 text that looks like ciphertext.
    pub(super) fn base64(&mut self, length: usize) -> String {
        self.letters(length, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    }
}
