//! A sample of the Nostr network for machines without internet access: signed events that look like real
//! ones, reproducible from a seed, and a small local relay that serves them.
//!
//! Names, hosts and texts are invented. The keys are derived from the seed, so the signatures prove nothing.

mod bodies;
mod dice;
mod draft;
mod generator;
mod languages;
mod relay;
#[cfg(test)]
mod tests;
mod words;

use std::io;

pub use generator::SampleGenerator;
pub use relay::{ANSWER_EVENTS_MAX, SampleRelay, SampleRelayError};

/// Writes `count` events as JSON lines, signed on all cores. A larger `count` extends the output of a smaller
/// one. `progress` receives the number of events written so far.
///
/// # Errors
///
/// Any error of `out`.
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
