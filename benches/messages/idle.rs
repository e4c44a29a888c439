//! Part `idle`: ten thousand connections that do nothing, what each costs the server, and whether the busy ones notice.

use std::net::SocketAddr;

use tokio::task::JoinSet;

use super::client::{Client, wayfarer};
use super::deliver::{PAIRS, Pairs};
use super::helper::{Helper, Role, Work};
use super::room::Room;
use super::support::run::{Run, middle_ms};
use super::{Bar, Row, heading, row};

const IDLE: usize = 10_000;
/// Connections that are being made at the same time.
const DIALLING: usize = 64;
const KB_EACH_MAX: f64 = 20.0;
/// How much worse the p99 may be than without the idle ones.
const SLOWDOWN_MAX: f64 = 1.25;

/// The helper's side: connects all, then listens, so that pings are answered.
pub(crate) async fn hold(count: usize, to: SocketAddr) -> Work {
    let mut dialling = JoinSet::new();
    let mut tasks = JoinSet::new();
    let mut keep = |client: Client| {
        let (mut ear, mouth) = client.split();
        tasks.spawn(async move {
            let _open = mouth;
            loop {
                ear.hear().await;
            }
        });
    };
    for number in 0..count {
        if dialling.len() == DIALLING {
            let client = dialling.join_next().await.expect("some are left");
            keep(client.expect("it connects"));
        }
        dialling.spawn(async move { Client::connect(to, &wayfarer("idle", number)).await });
    }
    dialling.join_all().await.into_iter().for_each(keep);
    Work { said: "all connected".to_owned(), tasks }
}

/// Rounds of busy pairs, connected for them: nobody would answer their pings meanwhile.
async fn busy(room: &Room, group: &str) -> Vec<Run> {
    Pairs::connect(room.ws, room.ws, group, PAIRS).await.rounds(&room.instance).await
}

pub(crate) async fn measure() -> Vec<Row> {
    let room = Room::start(&[]).await;
    let mut without = busy(&room, "before").await;
    let before = room.instance.resident_kib();
    let helper = Helper::start(&Role::Idle { count: IDLE, to: room.ws });
    let now = room.instance.resident_kib();
    let each = (now - before) * 1.024 / IDLE as f64;
    println!("{}: {before:.0} KiB before, {now:.0} KiB with them", helper.said);
    let with = busy(&room, "beside").await;
    let after_load = (room.instance.resident_kib() - before) * 1.024 / IDLE as f64;
    drop(helper);
    without.extend(busy(&room, "after").await);
    let p99 = |runs: &[Run]| middle_ms(runs, |run| run.p99);
    let ratio = p99(&with) / p99(&without);
    vec![
        heading(),
        row(
            "memory of the server for each of 10,000 idle connections",
            format!("{each:.1} kB"),
            format!("{KB_EACH_MAX} kB"),
            each / KB_EACH_MAX,
            Bar::AtMost(1.0),
        ),
        row(
            "the same after 20 s of load beside them",
            format!("{after_load:.1} kB"),
            format!("{KB_EACH_MAX} kB"),
            after_load / KB_EACH_MAX,
            Bar::AtMost(1.0),
        ),
        row(
            "send to receipt, 64 pairs beside the idle ones, p99",
            format!("{:.2} ms", p99(&with)),
            format!("{:.2} ms without them", p99(&without)),
            ratio,
            Bar::AtMost(SLOWDOWN_MAX),
        ),
    ]
}
