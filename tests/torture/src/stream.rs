//! The bytes of a direction of a connection, each known by its position.

use std::sync::OnceLock;

use super::plan::{Dice, Side};

/// Length of the pattern that streams are made of, a prime: no position is near another with the same bytes.
const PATTERN: usize = 2_097_169;

fn pattern() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut dice = Dice::new(0x5eed);
        let words = (0..=PATTERN / 8).flat_map(|_| dice.number().to_ne_bytes());
        words.take(PATTERN).collect()
    })
}

/// The stream of one direction: bytes by position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream(usize);

impl Stream {
    /// What this side of a connection sends.
    pub(super) fn of(connection: u64, sender: Side) -> Self {
        let mut dice = Dice::new(connection ^ if sender == Side::Client { 0 } else { 1 << 63 });
        let start = dice.below(PATTERN as u64);
        Self(usize::try_from(start).expect("less than the pattern"))
    }

    /// Up to `most` bytes from a position; fewer at the pattern's end.
    pub(super) fn at(self, position: u64, most: usize) -> &'static [u8] {
        let position = usize::try_from(position).expect("streams are short");
        let start = (self.0 + position) % PATTERN;
        &pattern()[start..PATTERN.min(start + most)]
    }

    /// The first position at which `bytes` are not the stream's.
    pub(super) fn first_wrong(self, position: u64, bytes: &[u8]) -> Option<u64> {
        let mut checked = 0;
        while checked < bytes.len() {
            let want = self.at(position + checked as u64, bytes.len() - checked);
            let got = &bytes[checked..checked + want.len()];
            if want != got {
                let wrong = want.iter().zip(got).position(|(a, b)| a != b);
                return wrong.map(|i| position + (checked + i) as u64);
            }
            checked += want.len();
        }
        None
    }
}
