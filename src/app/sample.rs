//! The relay of `quipu up --sample`: on loopback, with generated events.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};

use crate::sample::{SampleGenerator, SampleRelay};

/// Fixed, so that every sample has the same events: the seed, the number of authors and events, and the time
/// they span.
const SEED: u64 = 7;
const AUTHORS: usize = 600;
const EVENTS: u64 = 20_000;
const YEAR_2025: std::ops::Range<u64> = 1_735_689_600..1_767_225_600;

/// Starts the sample relay.
pub(super) async fn start(port: u16) -> Result<SampleRelay> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let events = tokio::task::spawn_blocking(|| {
        SampleGenerator::new(SEED, AUTHORS, YEAR_2025, EVENTS).collect::<Vec<_>>()
    })
    .await?;
    SampleRelay::start(address, events).await.with_context(|| {
        format!("the sample relay cannot start on port {port}; `--port-base N` moves all listeners")
    })
}
