//! A sample of the Nostr network for machines without the internet: signed events that look like real
//! ones, the same for the same seed, and a small local relay that serves them.
//!
//! Names, hosts and texts are made up. The keys follow from the seed, so nobody should believe these events.

mod bodies;
mod dice;
mod draft;
mod generator;
mod relay;
#[cfg(test)]
mod tests;
mod tongues;
mod words;

use std::io;

pub use generator::SampleGenerator;
pub use relay::{ANSWER_EVENTS_MAX, SampleRelay, SampleRelayError};

/// Writes `count` events as JSON lines, signed on all cores. A larger `count` continues the lines of a smaller
/// one. `progress` is told the number of events written so far.
///
/// # Errors
///
/// What `out` answers.
pub fn write_sample(
    out: &mut impl io::Write,
    count: u64,
    seed: u64,
    progress: impl Fn(u64),
) -> io::Result<()> {
    let mut written = 0;
    SampleGenerator::paced(seed, count).json_lines(|lines, events| {
        out.write_all(lines)?;
        written += events;
        progress(written);
        Ok(())
    })?;
    out.flush()
}
