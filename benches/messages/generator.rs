//! Part `generator`: the same load against a relay that stores nothing. If this were not faster than Quipu,
//! the other parts would measure the generator.

use super::deliver::{PAIRS, Pairs};
use super::helper::{Helper, Role};
use super::queue::{fill, is_empty, receive};
use super::send::Senders;
use super::support::run::{Run, run_heading, run_row};
use super::{ROUND, Row};
use crate::client::wayfarer;

const QUEUED: usize = 5_000;

pub(crate) async fn measure() -> Vec<Row> {
    let helper = Helper::start(&Role::Memory);
    let relay = helper.ready_line.parse().expect("the helper prints its address");
    let mut table = vec![run_heading("a relay in memory", "message")];
    let mut senders = Senders::connect(relay, "send", 256).await;
    for connections in [1, 64, 256] {
        let (latencies, elapsed) = senders.send(connections, ROUND).await;
        let name = format!("send to send_ok, {connections} connections");
        table.push(run_row(&name, &[Run::of(latencies, elapsed, 0)], String::new(), "", ""));
    }
    let (latencies, elapsed) = Pairs::connect(relay, relay, "deliver", PAIRS).await.exchange(ROUND).await;
    table.push(run_row(
        "send to receipt, 64 pairs",
        &[Run::of(latencies, elapsed, 0)],
        String::new(),
        "",
        "",
    ));
    let recipient = wayfarer("queued", 0);
    fill(relay, &recipient, QUEUED).await;
    let arrival = receive(relay, &recipient, QUEUED).await;
    assert!(arrival.repeated == 0 && is_empty(relay, &recipient).await, "each message once");
    let per_second = QUEUED as f64 / arrival.received.as_secs_f64();
    println!("{QUEUED} queued messages received at {per_second:.0}/s");
    table
}
