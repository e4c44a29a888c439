//! The console: its stream loses and repeats nothing, its limits hold, and its responses have the security
//! headers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use futures_util::StreamExt as _;
use quipu::base::SystemClock;
use quipu::config::Http;
use quipu::http::Edge;
use quipu::lifecycle::{HealthRegistry, Lifecycle, Schedule};
use quipu::services::console::{ConsoleParts, ConsoleState, STREAMS_MAX, routes, watcher};
use quipu::store::owner::connect;
use quipu::store::{Hints, Pools, Space};
use quipu::telemetry::Metrics;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, GenericClient};
use tower::ServiceExt as _;

use crate::support::database::TestDatabase;

const PATIENCE: Duration = Duration::from_secs(30);

/// A console with its own database.
pub(crate) struct Console {
    pub(crate) edge: Edge,
    pub(crate) state: ConsoleState,
    router: Router,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) health: HealthRegistry,
    pub(crate) owner: Client,
    pools: Pools,
    /// The last field, so that it is dropped after its clients.
    pub(crate) database: TestDatabase,
}

pub(crate) async fn console_under_test() -> Console {
    let database = TestDatabase::new().await;
    let owner = database.owner().await;
    let pools = database.pools();
    let health = HealthRegistry::new(Arc::new(SystemClock));
    let lifecycle = Lifecycle::new(PATIENCE);
    let state = ConsoleState::new(ConsoleParts {
        pools: pools.clone(),
        health: health.clone(),
        lifecycle: lifecycle.clone(),
        space: Space::default(),
        clock: Arc::new(SystemClock),
        listeners: vec![("console".to_owned(), "http://127.0.0.1:4700".to_owned())],
        blob_target: 2,
        pages: vec![("/", "Overview")],
        links: vec![("Grafana", "https://grafana.example/?a=\"b".to_owned())],
    });
    let (service, pace) = watcher(&state, Schedule::every(Duration::from_secs(1)), &Hints::default());
    lifecycle.run_service(service, pace, health.clone());
    let settings = Http { hosts: vec!["quipu.example".to_owned()], ..Http::default() };
    let edge = Edge::new(settings, &Metrics::new("test"), 1_000);
    let router = edge.router("console", &[], routes(state.clone()));
    Console { edge, state, router, lifecycle, health, owner, pools, database }
}

/// A request with the console's address in `Host`.
fn named(path: &str) -> axum::http::request::Builder {
    Request::get(path).header("host", "127.0.0.1:4700")
}

impl Console {
    async fn get(&self, request: axum::http::request::Builder) -> axum::response::Response {
        self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn ask(&self, path: &str) -> (StatusCode, HeaderMap, String) {
        let (head, body) = self.get(named(path)).await.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The body of `/status.json` once `holds` says so of it.
    async fn status_with(&self, holds: impl Fn(&Value) -> bool) -> Value {
        let body = async {
            loop {
                let (status, _, json) = self.ask("/status.json").await;
                assert_eq!(status, StatusCode::OK, "{json}");
                let json = serde_json::from_str(&json).unwrap();
                if holds(&json) {
                    return json;
                }
                sleep(Duration::from_millis(200)).await;
            }
        };
        timeout(PATIENCE, body).await.expect("the expected status in time")
    }

    async fn stream(&self, last_event_id: &str) -> Frames {
        let answer = self.get(named("/events").header("last-event-id", last_event_id)).await;
        Frames::of(answer)
    }

    pub(crate) async fn tick(&self) -> i64 {
        let sql = "SELECT quipu_take_tick(system_identifier) FROM pg_control_system()";
        self.owner.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Event ids and positions that a reader receives after `id`, up to the newest tick.
    async fn after(&self, id: &str, count: usize) -> Vec<(String, i64)> {
        let mut frames = self.stream(id).await;
        let mut got = Vec::new();
        while got.len() < count {
            let frame = frames.next_named().await;
            assert_eq!(frame.event, "entry", "{frame:?}");
            got.push((frame.id.unwrap(), frame.data["position"].as_i64().unwrap()));
        }
        got
    }

    /// Lets the projections read everything up to the newest tick.
    async fn project(&self) {
        for projection in quipu::app::registry::projections() {
            if projection.upkeep == quipu::store::projection::Upkeep::Ticks {
                projection.catch_up(&self.pools.write).await.unwrap();
            }
        }
    }

    async fn stop(self) {
        self.lifecycle.drain();
        self.lifecycle.run_until_stopped(futures_util::stream::pending::<&str>()).await;
        self.pools.close().await;
    }
}

/// Appends one journal entry. Returns its position.
async fn entry(client: &impl GenericClient, what: &str) -> i64 {
    let sql = "INSERT INTO relay_log (batch, slot, relay, kind, detail)
               VALUES (gen_random_uuid(), 0, 1, 'observed', jsonb_build_object('what', $1::text)) RETURNING position";
    client.query_one(sql, &[&what]).await.unwrap().get(0)
}

#[derive(Debug, Default)]
struct Frame {
    event: String,
    id: Option<String>,
    data: Value,
    comment: Option<String>,
}

/// Server-sent events, as a client reads them.
struct Frames {
    body: BodyDataStream,
    text: String,
}

impl Frames {
    fn of(answer: axum::response::Response) -> Self {
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-cache");
        assert_eq!(answer.headers()["x-accel-buffering"], "no");
        Self { body: answer.into_body().into_data_stream(), text: String::new() }
    }

    /// The next frame; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let mut read = Frame::default();
                for line in frame.lines() {
                    match line.split_once(':').unwrap() {
                        ("event", name) => name.trim_start().clone_into(&mut read.event),
                        ("id", id) => read.id = Some(id.trim_start().to_owned()),
                        ("data", data) => read.data = serde_json::from_str(data).unwrap(),
                        ("", comment) => read.comment = Some(comment.trim().to_owned()),
                        other => panic!("{other:?}"),
                    }
                }
                self.text = String::from(rest);
                return Some(read);
            }
            let bytes = timeout(PATIENCE, self.body.next()).await.expect("a frame in time")?.unwrap();
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// The next entry or reset.
    async fn next_named(&mut self) -> Frame {
        loop {
            let frame = self.next().await.expect("the stream continues");
            if frame.event == "entry" || frame.event == "reset" {
                return frame;
            }
        }
    }
}

/// A-SSE.3: entries that commit late belong to a later tick's batch.
#[tokio::test]
async fn resuming_anywhere_loses_nothing_and_repeats_nothing() {
    let console = console_under_test().await;
    let mut late = console.database.owner().await;
    entry(&console.owner, "before").await;
    let start = format!("{}-{}", console.tick().await, i64::MAX);

    let mut written = BTreeSet::new();
    for round in 0..4 {
        // Draws its position first, but commits two ticks later.
        let open = late.transaction().await.unwrap();
        let late_position = entry(&open, "late").await;
        for _ in 0..=round {
            written.insert(entry(&console.owner, "early").await);
        }
        console.tick().await;
        written.insert(entry(&console.owner, "between").await);
        console.tick().await;
        open.commit().await.unwrap();
        written.insert(late_position);
        assert!(written.iter().max() > Some(&late_position));
        console.tick().await;
    }
    // One tick with more than two pages.
    let sql = "INSERT INTO relay_log (batch, slot, relay, kind)
               SELECT gen_random_uuid(), 0, 1, 'observed' FROM generate_series(1, 450) RETURNING position";
    written.extend(console.owner.query(sql, &[]).await.unwrap().iter().map(|row| row.get::<_, i64>(0)));
    console.tick().await;

    let whole = console.after(&start, written.len()).await;
    assert_eq!(whole.iter().map(|(_, position)| *position).collect::<BTreeSet<_>>(), written);
    assert!(!whole.is_sorted_by_key(|(_, position)| *position), "a late commit comes after later positions");
    let places = (0..20).chain((20..whole.len() - 1).step_by(43)).chain([whole.len() - 2]);
    for place in places {
        let rest = console.after(&whole[place].0, whole.len() - place - 1).await;
        assert_eq!(rest, whole[place + 1..], "after {}", whole[place].0);
    }
    console.stop().await;
}

#[tokio::test]
async fn a_live_stream_that_is_cut_again_and_again_still_gets_everything_once() {
    let console = console_under_test().await;
    entry(&console.owner, "before").await;
    let mut id = format!("{}-{}", console.tick().await, i64::MAX);
    let writer = async {
        let mut late = console.database.owner().await;
        let mut written = BTreeSet::new();
        for round in 0..25 {
            let open = late.transaction().await.unwrap();
            written.insert(entry(&open, "late").await);
            written.insert(entry(&console.owner, "early").await);
            console.tick().await;
            sleep(Duration::from_millis(if round % 5 == 0 { 150 } else { 5 })).await;
            open.commit().await.unwrap();
            console.tick().await;
        }
        written
    };
    let reader = async {
        let mut got = Vec::new();
        for cut in (1..).take_while(|cut| cut * (cut - 1) / 2 < 50) {
            let mut frames = console.stream(&id).await;
            for _ in 0..cut.min(50 - got.len()) {
                let frame = frames.next_named().await;
                got.push(frame.data["position"].as_i64().unwrap());
                id = frame.id.unwrap();
            }
        }
        got
    };
    let (written, got) = tokio::join!(writer, reader);
    assert_eq!(got.len(), written.len());
    assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), written);
    console.stop().await;
}

#[tokio::test]
async fn a_deleted_tick_causes_a_reset_and_the_stream_continues() {
    let console = console_under_test().await;
    let mut ids = Vec::new();
    entry(&console.owner, "first").await;
    let begin = format!("{}-{}", console.tick().await, i64::MAX);
    for _ in 0..4 {
        entry(&console.owner, "more").await;
        console.tick().await;
    }
    ids.extend(console.after(&begin, 4).await.into_iter().map(|(id, _)| id));
    let kept: i64 = ids[2].split_once('-').unwrap().0.parse().unwrap();
    console.owner.execute("DELETE FROM tick WHERE number < $1", &[&kept]).await.unwrap();
    let newest = format!("{}-{}", ids[3].split_once('-').unwrap().0, i64::MAX);

    let mut streams = Vec::new();
    // Three ids: a tick that is gone; a tick that is kept while the one before it is not; a tick that never
    // existed.
    for id in [begin.as_str(), &ids[0], &ids[2], "999999-1"] {
        let mut frames = console.stream(id).await;
        let frame = frames.next_named().await;
        assert_eq!((frame.event.as_str(), frame.id.as_ref()), ("reset", Some(&newest)), "{id}");
        streams.push(frames);
    }
    // The cursor is at the end of the oldest tick, so nothing before it is needed.
    let mut whole = console.stream(&format!("{kept}-{}", i64::MAX)).await;
    assert_eq!(whole.next_named().await.id.as_ref(), Some(&ids[3]));
    streams.push(whole);
    let position = entry(&console.owner, "after").await;
    console.tick().await;
    for frames in &mut streams {
        assert_eq!(frames.next_named().await.data["position"], position);
    }

    // `tick` is a working table and may be truncated at any time: the stream then sends a reset.
    console.owner.batch_execute("TRUNCATE tick").await.unwrap();
    entry(&console.owner, "unseen").await;
    console.tick().await;
    for frames in &mut streams {
        assert_eq!(frames.next_named().await.event, "reset");
    }
    console.stop().await;
}

#[tokio::test]
async fn a_stream_that_begins_before_the_first_tick_sends_reset_after_it() {
    let console = console_under_test().await;
    console.owner.batch_execute("TRUNCATE tick").await.unwrap();
    let mut frames = Frames::of(console.get(named("/events")).await);
    assert_eq!(frames.next().await.unwrap().comment.as_deref(), Some("from here on"));
    entry(&console.owner, "first").await;
    console.tick().await;
    assert_eq!(frames.next_named().await.event, "reset");
    let position = entry(&console.owner, "second").await;
    console.tick().await;
    assert_eq!(frames.next_named().await.data["position"], position);
    console.stop().await;
}

#[tokio::test]
async fn nonsense_is_rejected_and_the_header_wins_over_the_query() {
    let console = console_under_test().await;
    entry(&console.owner, "first").await;
    let tick = console.tick().await;
    for id in ["", "7", "x-1", "1-", "-1-1", "1-1-1", "99999999999999999999-1"] {
        let (status, _, body) = console.ask(&format!("/events?last_event_id={id}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{id}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["field"], "last_event_id");
    }
    let good = format!("{tick}-{}", i64::MAX);
    let both = named(&format!("/events?last_event_id={good}")).header("last-event-id", "nonsense");
    assert_eq!(console.get(both).await.status(), StatusCode::BAD_REQUEST);
    let both = named("/events?last_event_id=nonsense").header("last-event-id", good);
    assert_eq!(console.get(both).await.status(), StatusCode::OK);
    console.stop().await;
}

#[tokio::test]
async fn streams_are_bounded_and_a_reader_that_leaves_makes_room() {
    let console = console_under_test().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(Frames::of(console.get(named("/events")).await));
    }
    for path in ["/events", "/panels", "/blobs/panels", "/status.json"] {
        let of_a_page = named(path).header("sec-fetch-site", "cross-site");
        assert_eq!(console.get(of_a_page).await.status(), StatusCode::FORBIDDEN, "{path}");
    }
    let link = named("/").header("sec-fetch-site", "cross-site");
    assert_eq!(console.get(link).await.status(), StatusCode::OK, "another page may link to the console");
    let (status, headers, _) = console.ask("/events").await;
    assert_eq!((status, &headers["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap()));
    streams.pop();
    let room = async {
        while console.get(named("/events")).await.status() != StatusCode::OK {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, room).await.expect("room for one more");
    // At the drain streams end, and none begins.
    console.lifecycle.drain();
    for frames in &mut streams {
        while frames.next().await.is_some() {}
    }
    assert_eq!(console.ask("/events").await.0, StatusCode::SERVICE_UNAVAILABLE);
    console.stop().await;
}

/// Requests that leave would otherwise take every connection of the console.
#[tokio::test]
async fn a_query_that_hangs_is_sent_once_and_ended_by_postgresql() {
    let console = console_under_test().await;
    console.tick().await;
    let superuser = connect(&console.database.superuser_url()).await.unwrap();
    console
        .owner
        .batch_execute("BEGIN; LOCK TABLE implementation_log IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND state = 'active' AND query LIKE '-- latest_entries%'";
    let running = async || superuser.query_one(running, &[]).await.unwrap().get::<_, i64>(0);
    let begun = async {
        while running().await == 0 {
            let _ = timeout(Duration::from_millis(100), console.get(named("/"))).await;
        }
    };
    timeout(PATIENCE, begun).await.expect("the page reads the journal");
    for _ in 0..12 {
        let left = timeout(Duration::from_millis(20), console.get(named("/"))).await;
        assert!(left.is_err(), "the query hangs");
        assert_eq!(running().await, 1);
    }
    let ended = async {
        while running().await > 0 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("it ends although the lock is held");
    assert_eq!(console.ask("/").await.0, StatusCode::OK, "the page has no journal and the rest");
    console.owner.batch_execute("ROLLBACK").await.unwrap();
    console.stop().await;
}

/// A-SSE.5
#[tokio::test]
async fn a_slow_reader_is_dropped_and_gets_the_rest_when_it_reconnects() {
    let console = console_under_test().await;
    entry(&console.owner, "before").await;
    let start = format!("{}-{}", console.tick().await, i64::MAX);
    let sql = "INSERT INTO relay_log (batch, slot, relay, kind)
               SELECT gen_random_uuid(), 0, 1, 'observed' FROM generate_series(1, 300)";
    console.owner.batch_execute(sql).await.unwrap();
    console.tick().await;
    let mut frames = console.stream(&start).await;
    sleep(Duration::from_secs(23)).await;
    let (mut got, mut id) = (0, start);
    while let Some(frame) = frames.next().await {
        if frame.event == "entry" {
            got += 1;
            id = frame.id.unwrap();
        }
    }
    assert!((1..=64).contains(&got), "{got} frames waited");
    console.after(&id, 300 - got).await;
    console.stop().await;
}

/// A-SSE.4
#[tokio::test]
async fn an_idle_stream_sends_comments_with_its_cursor() {
    let console = console_under_test().await;
    entry(&console.owner, "before").await;
    let tick = console.tick().await;
    let mut frames = Frames::of(console.get(named("/events")).await);
    assert_eq!(frames.next().await.unwrap().id, Some(format!("{tick}-{}", i64::MAX)));
    let quiet = loop {
        let frame = frames.next().await.unwrap();
        if frame.comment.is_some() {
            break frame;
        }
        assert_eq!(frame.event, "totals");
    };
    assert_eq!((quiet.comment.as_deref(), quiet.id), (Some("quiet"), Some(format!("{tick}-{}", i64::MAX))));
    console.stop().await;
}

#[tokio::test]
async fn the_page_and_its_numbers_say_the_same() {
    let console = console_under_test().await;
    let (status, headers, page) = console.ask("/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("Nothing archived yet.") && page.contains("quipu relays add"), "{page}");
    assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'self';"));
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    assert_eq!(headers["x-frame-options"], "DENY");

    let insert = "SELECT insert_event_batch(gen_random_uuid(), 'relay', '{}', ARRAY[sha256($1::text::bytea)], ARRAY[sha256('a')], ARRAY[1700000000],
                  ARRAY[$2::integer], ARRAY['[]'], ARRAY['<b>'], ARRAY[decode(repeat('00', 64), 'hex')], ARRAY[NULL::bytea],
                  ARRAY[0], insert_relay($3), '{}', '{}', '{}', '{}', 0)";
    for (id, kind, relay) in
        [("1", 1, "wss://one.example"), ("2", 1, "wss://one.example"), ("3", 7, "wss://two.example")]
    {
        console.owner.query_one(insert, &[&id, &kind, &relay]).await.unwrap();
    }
    console.tick().await;
    console.project().await;
    console.health.starting("finder");
    console.health.cycle_failed("finder", "no <network>");
    // Figures are kept for some seconds.
    let json = console
        .status_with(|json| {
            json["figures"]["archive"]["relays"][0]["relays"] == 2 && json["archive"]["totals"]["events"] == 3
        })
        .await;
    let totals = &json["archive"]["totals"];
    assert_eq!((&totals["sightings"], &totals["day_events"]), (&3.into(), &3.into()), "{json}");
    assert_eq!(totals["events_per_second"], 0.05);
    assert_eq!(totals["minutes"].as_array().unwrap().len(), 60);
    assert_eq!(totals["minutes"].as_array().unwrap().iter().filter_map(Value::as_i64).sum::<i64>(), 3);
    let lags = totals["lags"].as_array().unwrap();
    let lag =
        lags.iter().find(|lag| lag["projection"] == "totals").expect("the projection that follows ticks");
    assert_eq!(lag["batches"], 0);
    assert_eq!(json["archive"]["lists"]["kinds"][0], serde_json::json!({ "kind": 1, "events": 2 }));
    assert_eq!(json["archive"]["lists"]["relays"][0]["url"], "wss://one.example");
    let journals = json["figures"]["sizes"]["journals"].as_array().unwrap();
    assert!(journals.len() > 6, "{journals:?}");
    let bytes = |name: &str| {
        journals
            .iter()
            .find(|journal| journal["journal"] == name)
            .and_then(|journal| journal["bytes"].as_i64())
    };
    assert!(bytes("events") > Some(0) && bytes("relay_log") > Some(0), "{journals:?}");
    assert_eq!(json["services"]["finder"]["state"], "failing");

    let (_, _, page) = console.ask("/").await;
    for expected in [
        "text note",
        "one.example",
        "1 service is failing",
        "no &lt;network&gt;",
        "ingested",
        "http://127.0.0.1:4700",
    ] {
        assert!(page.contains(expected), "{expected} is missing in {page}");
    }
    assert!(!page.contains("Nothing archived yet."));
    // The stream continues where the page ends.
    let id = page.split_once("data-last-event-id=\"").unwrap().1.split_once('"').unwrap().0.to_owned();
    let position = entry(&console.owner, "after the page").await;
    console.tick().await;
    assert_eq!(console.after(&id, 1).await[0].1, position);
    console.stop().await;
}

/// One relay that can be read and whose sessions fail; nothing archived for three hours; a verification that
/// found differences; messages without an acknowledgement.
const FAULTS: &str = "
    INSERT INTO nip66 (id, openable, readable, writable, detail) VALUES (sha256('checked'), true, true, false, '{}');
    INSERT INTO relay_metadata (relay_url, generated_at, nip66_id)
    SELECT url, extract(epoch FROM now())::bigint, sha256('checked') FROM relays;
    INSERT INTO relay_visits (relay, began_at, outcome) SELECT number, now() - interval '10 minutes', 'timeout' FROM relays
    ON CONFLICT (relay) DO UPDATE SET began_at = excluded.began_at, outcome = excluded.outcome;
    INSERT INTO minute_totals (minute, offered, stored, sightings) VALUES (date_trunc('minute', now()) - interval '3 hours', 5, 5, 5);
    INSERT INTO verification (scope, ended_at, seconds, problems) VALUES ('tables', now() - interval '1 day', 1, 2);
    INSERT INTO message_log (kind, msg_id, sender, recipient, ttl_s, expires_at, payload_sha256, payload_bytes)
    SELECT 'accepted', gen_random_uuid(), 'a', 'b', 60, now() + interval '1 hour', sha256('x'), 1 FROM generate_series(1, 11)";

#[tokio::test]
async fn the_page_says_in_words_what_is_wrong_and_nothing_when_nothing_is() {
    let fine = console_under_test().await;
    let (_, _, page) = fine.ask("/").await;
    assert!(page.contains("Nothing is wrong.") && page.contains("Checked at "), "{page}");
    fine.stop().await;

    let console = console_under_test().await;
    console.owner.execute("SELECT insert_relay('wss://one.example')", &[]).await.unwrap();
    // The first projection begins with empty totals.
    console.tick().await;
    console.project().await;
    console.owner.batch_execute(FAULTS).await.unwrap();
    console.tick().await;
    console.project().await;
    console.health.starting("finder");
    console.health.cycle_failed("finder", "no <network>");
    let (status, _, page) = console.ask("/").await;
    assert_eq!(status, StatusCode::OK);
    for expected in [
        "Nothing is archived, although relays can be read.",
        "The network clearnet is silent: 1 session failed within 60 minutes, and no relay answered.",
        "The newest <code>quipu verify</code> found 2 differences.",
        "11 messages were committed in the last 60 minutes, and no device acknowledged one.",
        "The service finder fails: no &lt;network&gt;.",
        "<b>Do: </b>Keep the output of <code>quipu verify</code>.",
        r#"href="/alerts.md#:~:text=QuipuNetworkSilent""#,
    ] {
        assert!(page.contains(expected), "{expected} is missing in {page}");
    }
    assert!(!page.contains("Nothing is wrong."), "{page}");
    let json = console.status_with(|_| true).await;
    let problems: Vec<_> = json["problems"].as_array().unwrap().iter().map(|one| &one["alert"]).collect();
    assert_eq!(
        problems,
        [
            "QuipuVerifyFailed",
            "QuipuNothingArchived",
            "QuipuServiceFailing",
            "QuipuMessagesNotDelivered",
            "QuipuNetworkSilent"
        ]
    );
    // The panels, which a page that is open polls, say the same; what is healed disappears.
    console.health.cycle_succeeded("finder");
    let (_, _, panels) = console.ask("/panels").await;
    assert!(panels.contains("Nothing is archived,") && !panels.contains("The service finder"), "{panels}");
    console.stop().await;
}

/// Two upstreams: one has two blobs, the other failed twice and lost one.
const BLOBS: &str = r#"SELECT quipu_append_blobs(gen_random_uuid(), $$[
    {"do": "store", "sha256": "1111111111111111111111111111111111111111111111111111111111111111", "size": 2048, "type": "image/png",
     "actor": "anonymous", "owner": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "how": "uploaded", "results": [
        {"upstream": "https://one.example", "kind": "accepted", "why": null}, {"upstream": "https://one.example", "kind": "readable", "why": null},
        {"upstream": "https://two.example", "kind": "failed", "why": "413 <too large>"}]},
    {"do": "store", "sha256": "2222222222222222222222222222222222222222222222222222222222222222", "size": 10, "type": "text/plain",
     "actor": "anonymous", "owner": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "how": "uploaded", "results": [
        {"upstream": "https://one.example", "kind": "accepted", "why": null}, {"upstream": "https://two.example", "kind": "accepted", "why": null},
        {"upstream": "https://two.example", "kind": "lost", "why": "404"}]}]$$)"#;

#[tokio::test]
async fn the_page_of_blobs_shows_upstreams_what_they_lack_and_what_came() {
    let console = console_under_test().await;
    let (status, headers, page) = console.ask("/blobs").await;
    assert_eq!(status, StatusCode::OK);
    assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'self';"));
    assert!(page.contains("No blob is kept yet.") && page.contains("quipu blobs upload"), "{page}");
    console.stop().await;

    let console = console_under_test().await;
    console.owner.batch_execute(BLOBS).await.unwrap();
    let (_, _, page) = console.ask("/blobs").await;
    for expected in [
        "https://one.example",
        "https://two.example",
        "111111111111",
        "image/png",
        "aaaaaaaaaaaa",
        "1 copy",
        "413 &lt;too large&gt;",
        "failures in 1 of 24 hours",
        "failures in 0 of 24 hours",
    ] {
        assert!(page.contains(expected), "{expected} is missing in {page}");
    }
    // Two copies are wanted of each, and both blobs have one.
    let shown = page.split_once("too few copies</dt><dd>").unwrap().1;
    assert!(shown.starts_with("2<"), "{shown}");
    let (status, _, panels) = console.ask("/blobs/panels").await;
    assert_eq!(status, StatusCode::OK);
    assert!(panels.contains("panel-upstreams") && !panels.contains("<html"), "{panels}");
    console.stop().await;
}

#[tokio::test]
async fn the_page_links_to_other_programs_and_says_what_each_alert_means() {
    let console = console_under_test().await;
    let (_, _, page) = console.ask("/").await;
    assert!(page.contains(r#"href="https://grafana.example/?a=&quot;b""#), "{page}");
    assert!(!page.contains("Prometheus"), "{page}");
    let (status, headers, alerts) = console.ask("/alerts.md").await;
    assert_eq!(
        (status, &headers["content-type"]),
        (StatusCode::OK, &"text/plain; charset=utf-8".parse().unwrap())
    );
    assert!(alerts.contains("### QuipuNetworkSilent"), "{alerts}");
    console.stop().await;
}

#[tokio::test]
async fn a_foreign_host_name_is_refused_on_every_route_and_ours_are_not() {
    let console = console_under_test().await;
    for path in ["/", "/events", "/status.json", "/console.js", "/nowhere"] {
        let answer = console.get(Request::get(path).header("host", "rebind.example:4700")).await;
        assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST, "{path}");
        assert_eq!(answer.headers()["x-frame-options"], "DENY");
    }
    let answer = console.get(Request::get("/console.css").header("host", "quipu.example")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    console.stop().await;
}

#[tokio::test]
async fn without_a_database_the_page_still_shows_the_services() {
    let console = console_under_test().await;
    console.health.starting("finder");
    let mut frames = Frames::of(console.get(named("/events")).await);
    console.pools.close().await;
    let failure = loop {
        let frame = frames.next().await.expect("it says why before it ends");
        if frame.event == "failure" {
            break frame.data;
        }
    };
    assert!(failure["code"].is_string() && failure["request_id"].is_string(), "{failure}");
    assert!(timeout(PATIENCE, frames.next()).await.unwrap().is_none());
    let (status, _, page) = console.ask("/").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.contains("PostgreSQL does not answer.") && page.contains("finder"), "{page}");
    assert_eq!(console.ask("/events").await.0, StatusCode::SERVICE_UNAVAILABLE);
    console.stop().await;
}
