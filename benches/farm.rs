//! `make farm`: runs a thousand well-behaved and misbehaving relays on the loopback, for trying out an
//! archive.
//!
//! `cargo bench … --bench farm -- RELAYS EVENTS` sets the number of relays and of the events they share.

#[path = "farm/mod.rs"]
#[allow(dead_code, reason = "tests and other benches use the rest")]
mod farm;

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use farm::{Character, Extent, Farm, Plan};

/// All relays use this port, each on an address of its own.
const PORT: u16 = 7777;
/// Shared events that each relay holds.
const EVENTS_EACH: usize = 300;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let relays = numbers.next().unwrap_or(1_000_usize);
    let events = numbers.next().unwrap_or(20_000_usize);
    println!("Signing {events} events …");
    let extent = Extent { seed: 77, events: u64::try_from(events).expect("64 bits") };
    let plan = Plan { relays, character: Character::mixed, extent, events_each: EVENTS_EACH, port: PORT };
    let farm = Farm::start(&plan).await?;
    let file = Path::new("farm-relays.txt");
    write_urls(file, &farm)?;
    let truth = farm.truth(u64::MAX).len();
    println!(
        "{} relays from {} to {}, {truth} pairs of event and relay that a correct client can fetch; stop with Ctrl-C.\n\n\
         In another shell, to archive them and nothing else:\n  \
         quipu up --data ./farm-data --set services.initializer.enabled=false --set services.finder.enabled=false\n  \
         quipu relays add --data ./farm-data $(cat {})\n",
        farm.relays().len(),
        farm.relays().first().map_or_else(String::new, |relay| relay.url()),
        farm.relays().last().map_or_else(String::new, |relay| relay.url()),
        file.display(),
    );
    tokio::signal::ctrl_c().await?;
    report(&farm);
    std::fs::remove_file(file)
}

fn write_urls(file: &Path, farm: &Farm) -> std::io::Result<()> {
    let mut file = std::fs::File::create(file)?;
    for relay in farm.relays() {
        writeln!(file, "{}", relay.url())?;
    }
    Ok(())
}

/// Prints the requests received, by character.
fn report(farm: &Farm) {
    println!("\ncharacter        REQs  documents  connections  bytes sent");
    for character in farm::ALL {
        let sum = |count: fn(&farm::Counts) -> u64| -> u64 {
            farm.of(|other| other == character).map(|relay| count(relay.counts())).sum()
        };
        println!(
            "{:<15}{:>6}{:>11}{:>13}{:>12}",
            format!("{character:?}"),
            sum(|counts| counts.requests.load(Ordering::Relaxed)),
            sum(|counts| counts.documents.load(Ordering::Relaxed)),
            sum(|counts| counts.opened.load(Ordering::Relaxed)),
            sum(|counts| counts.sent.load(Ordering::Relaxed)),
        );
    }
}
