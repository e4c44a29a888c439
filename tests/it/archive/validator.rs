//! Tests of the validator against relays and other servers. The peers live on the loopback, where only relays
//! named by the operator are dialled, so they are reached under names of other networks through a proxy.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use quipu::base::{Refusals, RelayUrl};
use quipu::config::{self, Networks};
use quipu::lifecycle::{CycleOutcome, Service as _};
use quipu::net::Egress;
use quipu::services::archive::command::RelayCommand;
use quipu::services::archive::metrics::ValidatorMetrics;
use quipu::services::archive::react::{Validator, ValidatorParts};
use quipu::services::archive::{Finding, RelayAnswer, RelayJournal};
use quipu::store::lease::Leases;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::candidates::{WIDE, find};
use super::kit::Relay;
use crate::store::kit::{Kit, number, offered, sample, texts};
use crate::support::proxy::eventually;
use crate::support::socks::SocksProxy;

const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

/// Tor and I2P through a proxy that connects to the loopback.
fn networks(proxy: SocketAddr, connect_s: u32, idle_s: u32) -> Networks {
    let mut networks = Networks::default();
    for network in [&mut networks.tor, &mut networks.i2p] {
        network.enabled = true;
        network.proxy_address = Some(proxy.to_string());
        network.connect_timeout_s = NonZeroU32::new(connect_s).unwrap();
        network.idle_timeout_s = NonZeroU32::new(idle_s).unwrap();
    }
    networks
}

async fn proxy() -> SocksProxy {
    SocksProxy::start(Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).await
}

/// The validator of one process.
fn validator(kit: &mut Kit, networks: &Networks, settings: config::Validator) -> Validator {
    let parts = ValidatorParts {
        pools: kit.pools.clone(),
        relays: kit.writer(RelayJournal),
        leases: Leases::new(kit.pools.write.clone()),
        outside: Egress::with_dns_servers(networks, &[]).unwrap(),
        networks: networks.clone(),
        candidates_max: config::Finder::default().candidates_max,
        metrics: ValidatorMetrics::default(),
    };
    Validator::new(parts, settings)
}

async fn cycle(kit: &mut Kit, networks: &Networks, settings: &config::Validator) {
    let validator = validator(kit, networks, settings.clone());
    assert_eq!(validator.cycle(&CancellationToken::new()).await.unwrap(), CycleOutcome::Idle);
}

/// Serves each connection by `script`. Returns the port and the counter of connections.
async fn peer<F>(kit: &mut Kit, script: impl Fn(TcpStream) -> F + Send + 'static) -> (u16, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let came = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&came);
    kit.tasks.spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            connections.spawn(script(stream));
        }
    });
    (port, came)
}

type Socket = WebSocketStream<TcpStream>;

/// A peer that completes the handshake, and answers each message with the result of `answer`.
async fn speaker(
    kit: &mut Kit,
    greeting: Option<&'static str>,
    answer: fn(&Value) -> Vec<Value>,
) -> (u16, Arc<AtomicUsize>) {
    peer(kit, move |stream| async move {
        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
        if let Some(greeting) = greeting {
            let _ = socket.send(Message::text(greeting)).await;
        }
        converse(socket, answer).await;
    })
    .await
}

async fn converse(mut socket: Socket, answer: fn(&Value) -> Vec<Value>) {
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        for said in answer(&serde_json::from_str(&text).unwrap()) {
            if socket.send(Message::text(said.to_string())).await.is_err() {
                return;
            }
        }
    }
}

fn eose(asked: &Value) -> Vec<Value> {
    if asked[0] == "REQ" { vec![json!(["EOSE", asked[1]])] } else { Vec::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_answers_as_a_relay_becomes_one_and_nothing_else_does() {
    let mut kit = Kit::new().await;
    let proxy = proxy().await;
    let networks = networks(proxy.address(), 15, 5);
    let real = Relay::start(sample(80, 20)).await;
    let real_port: u16 = real.url.rsplit_once(':').unwrap().1.parse().unwrap();
    let challenge = Some(r#"["AUTH","challenge"]"#);
    let closed: fn(&Value) -> Vec<Value> =
        |asked| vec![json!(["CLOSED", asked[1], "auth-required: who are you?"])];
    let restricted: fn(&Value) -> Vec<Value> =
        |asked| vec![json!(["CLOSED", asked[1], "restricted: members"])];
    let relays = [
        ("ws", "empty.i2p", speaker(&mut kit, None, eose).await.0),
        ("ws", "guarded.i2p", speaker(&mut kit, challenge, closed).await.0),
        ("ws", "members.i2p", speaker(&mut kit, None, restricted).await.0),
        ("ws", "real.i2p", real_port),
        ("ws", ONION, real_port),
    ];
    let echo: fn(&Value) -> Vec<Value> = |asked| vec![asked.clone()];
    let for_others: fn(&Value) -> Vec<Value> = |_| vec![json!(["EOSE", "other"]), json!(["NOTICE", "hello"])];
    let mute: fn(&Value) -> Vec<Value> = |_| Vec::new();
    let page = |mut stream: TcpStream| async move {
        let _ = stream.read(&mut [0; 1_024]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    };
    let silent = |stream: TcpStream| async move {
        let _open = stream;
        pending::<()>().await;
    };
    let gone = |stream: TcpStream| async move { drop(tokio_tungstenite::accept_async(stream).await) };
    let others = [
        ("ws", "website.i2p", peer(&mut kit, page).await.0, "not_a_relay"),
        ("wss", "plain.i2p", relays[0].2, "tls"),
        ("ws", "silent.i2p", peer(&mut kit, silent).await.0, "timeout"),
        ("ws", "echo.i2p", speaker(&mut kit, None, echo).await.0, "silent"),
        ("ws", "mute.i2p", speaker(&mut kit, None, mute).await.0, "silent"),
        ("ws", "challenging.i2p", speaker(&mut kit, challenge, mute).await.0, "silent"),
        ("ws", "other.i2p", speaker(&mut kit, None, for_others).await.0, "silent"),
        ("ws", "gone.i2p", peer(&mut kit, gone).await.0, "lost"),
    ];
    let writer = kit.writer(RelayJournal);
    let url = |scheme: &str, name: &str, port: u16| format!("{scheme}://{name}:{port}");
    for (scheme, name, port) in
        relays.into_iter().chain(others.map(|(scheme, name, port, _)| (scheme, name, port)))
    {
        assert_eq!(find(&writer, &url(scheme, name, port), WIDE).await, Finding::New);
    }
    cycle(&mut kit, &networks, &config::Validator::default()).await;

    let owner = kit.database.owner().await;
    let mut expected = relays.map(|(scheme, name, port)| url(scheme, name, port));
    expected.sort();
    assert_eq!(texts(&owner, "SELECT url FROM relays WHERE source = 'validator' ORDER BY 1").await, expected);
    let rows =
        owner.query("SELECT url, last_reason, tries FROM candidate_tries JOIN candidates USING (url)", &[]);
    let rows = rows.await.unwrap();
    let failed: BTreeMap<String, (String, i32)> =
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    let expected: BTreeMap<String, (String, i32)> = others
        .iter()
        .map(|(scheme, name, port, reason)| (url(scheme, name, *port), ((*reason).to_owned(), 1)))
        .collect();
    assert_eq!(failed, expected);
    assert_eq!(number(&owner, "SELECT count(*) FROM candidates").await, 8);
    let later = "SELECT count(*) FROM candidate_tries WHERE next_try_at BETWEEN now() + interval '58 minutes' AND now() + interval '1 hour'";
    assert_eq!(number(&owner, later).await, 8);
    assert_eq!(number(&owner, "SELECT count(*) FROM lease").await, 0);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_candidate_whose_record_fails_is_put_off_alone() {
    let mut kit = Kit::new().await;
    let proxy = proxy().await;
    let networks = networks(proxy.address(), 15, 5);
    let (port, _) = speaker(&mut kit, None, eose).await;
    let writer = kit.writer(RelayJournal);
    for name in ["one", "two", "three"] {
        find(&writer, &format!("ws://{name}.i2p:{port}"), WIDE).await;
    }
    let fail = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'planted'; END $$;
                CREATE TRIGGER fail BEFORE INSERT ON relays FOR EACH ROW WHEN (NEW.url LIKE '%two%') EXECUTE FUNCTION fail()";
    kit.superuser().await.batch_execute(fail).await.unwrap();
    cycle(&mut kit, &networks, &config::Validator::default()).await;
    let owner = kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT count(*) FROM relays").await, 2);
    let put_off = "SELECT url || ' ' || tries || ' ' || last_reason FROM candidate_tries WHERE next_try_at > now() + interval '1 hour'";
    assert_eq!(texts(&owner, put_off).await, [format!("ws://two.i2p:{port} 1 failed")]);
    assert_eq!(number(&owner, "SELECT count(*) FROM lease").await, 0);
}

#[tokio::test]
async fn a_private_address_is_dropped_at_once_and_never_dialled() {
    let mut kit = Kit::new().await;
    let (port, came) = speaker(&mut kit, None, eose).await;
    let writer = kit.writer(RelayJournal);
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"] {
        assert_eq!(find(&writer, &format!("ws://{host}:{port}"), WIDE).await, Finding::New);
    }
    cycle(&mut kit, &Networks::default(), &config::Validator::default()).await;
    let owner = kit.database.owner().await;
    let dropped = "SELECT count(*) FROM relay_log WHERE kind = 'dropped' AND detail = '{\"reason\": \"private_address\", \"tries\": 1}'";
    assert_eq!(number(&owner, dropped).await, 4);
    assert_eq!(number(&owner, "SELECT count(*) FROM candidates").await, 0);
    assert_eq!(came.load(Ordering::SeqCst), 0);
    assert_eq!(find(&writer, &format!("ws://localhost:{port}"), WIDE).await, Finding::Dropped);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_candidate_whose_url_cannot_be_parsed_is_dropped_with_the_reason() {
    let mut kit = Kit::new().await;
    let owner = kit.database.owner().await;
    let found = "
        INSERT INTO relay_log (batch, slot, kind, url, network, detail)
        VALUES (gen_random_uuid(), 0, 'found', 'wss://two words.example', 'clearnet',
                '{\"source\": \"event\", \"domain\": \"words.example\"}');
        INSERT INTO candidates (url, network, found_at, source, domain)
        SELECT url, network, recorded_at, detail ->> 'source', detail ->> 'domain' FROM relay_log";
    owner.batch_execute(found).await.unwrap();
    cycle(&mut kit, &Networks::default(), &config::Validator::default()).await;
    let dropped = "SELECT url || ' ' || (detail ->> 'reason') FROM relay_log WHERE kind = 'dropped'";
    assert_eq!(texts(&owner, dropped).await, ["wss://two words.example bad_url"]);
    assert_eq!(number(&owner, "SELECT count(*) FROM candidates").await, 0);
    assert_eq!(number(&owner, "SELECT count(*) FROM candidate_tries").await, 0);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_failing_candidate_is_tried_after_growing_pauses_and_given_up_with_the_last_reason() {
    let mut kit = Kit::new().await;
    let proxy = proxy().await;
    let networks = networks(proxy.address(), 15, 5);
    let (port, came) =
        peer(&mut kit, |stream| async move { drop(tokio_tungstenite::accept_async(stream).await) }).await;
    let settings =
        config::Validator { tries_max: NonZeroU32::new(4).unwrap(), ..config::Validator::default() };
    let writer = kit.writer(RelayJournal);
    let url = format!("ws://gone.i2p:{port}");
    find(&writer, &url, WIDE).await;
    let owner = kit.database.owner().await;
    let superuser = kit.superuser().await;
    let due = "UPDATE candidate_tries SET next_try_at = now()";
    for (tries, hours) in [(1, 1), (2, 2), (3, 4)] {
        cycle(&mut kit, &networks, &settings).await;
        cycle(&mut kit, &networks, &settings).await;
        assert_eq!(came.load(Ordering::SeqCst), tries, "not before its time");
        let pause =
            "SELECT round(extract(epoch FROM next_try_at - now()) / 3600)::bigint FROM candidate_tries";
        assert_eq!(number(&owner, pause).await, hours);
        superuser.batch_execute(due).await.unwrap();
    }
    // After truncating the table the count starts again; nothing else is lost.
    superuser.batch_execute("TRUNCATE candidate_tries").await.unwrap();
    for _ in 0..4 {
        assert_eq!(number(&owner, "SELECT count(*) FROM candidates").await, 1);
        cycle(&mut kit, &networks, &settings).await;
        superuser.batch_execute(due).await.unwrap();
    }
    assert_eq!(came.load(Ordering::SeqCst), 7);
    assert_eq!(number(&owner, "SELECT count(*) FROM candidates").await, 0);
    assert_eq!(number(&owner, "SELECT count(*) FROM candidate_tries").await, 0);
    let detail = "SELECT detail::text FROM relay_log WHERE kind = 'dropped'";
    assert_eq!(texts(&owner, detail).await, [r#"{"tries": 4, "reason": "lost"}"#]);
    assert_eq!(find(&writer, &url, WIDE).await, Finding::Dropped);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_proxy_of_ours_that_is_away_is_no_failure_of_the_candidates_and_networks_that_are_off_wait() {
    let mut kit = Kit::new().await;
    let away = networks(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), 15, 5);
    let writer = kit.writer(RelayJournal);
    find(&writer, "ws://a.i2p", WIDE).await;
    find(&writer, "ws://b.loki", WIDE).await;
    cycle(&mut kit, &away, &config::Validator::default()).await;
    let owner = kit.database.owner().await;
    let tries = "SELECT url || ' ' || tries || ' ' || last_reason FROM candidate_tries";
    assert_eq!(texts(&owner, tries).await, ["ws://a.i2p 0 proxy"]);
    assert_eq!(number(&owner, "SELECT count(*) FROM candidates").await, 2);
}

/// Adds a relay that has sent an event.
async fn shows_an_event(kit: &mut Kit, url: &str, seed: u64) {
    let add = RelayCommand::Add { url: RelayUrl::parse(url).unwrap(), source: "operator" };
    let RelayAnswer::Known { relay, .. } = kit.writer(RelayJournal).append(add).await.unwrap() else {
        panic!("an addition answers with a number")
    };
    kit.intake().offer(Some(relay), offered(&sample(seed, 1)), Refusals::default()).await.unwrap();
}

#[tokio::test]
async fn an_outage_of_our_own_uplink_is_no_failure_of_the_candidates() {
    let mut kit = Kit::new().await;
    let proxy = proxy().await;
    let networks = networks(proxy.address(), 1, 1);
    let (mute, came) = peer(&mut kit, |stream| async move {
        let _open = stream;
        pending::<()>().await;
    })
    .await;
    let (known, _) = speaker(&mut kit, None, eose).await;
    let writer = kit.writer(RelayJournal);
    let (owner, superuser) = (kit.database.owner().await, kit.superuser().await);
    for n in 0..6 {
        find(&writer, &format!("ws://h{n}.i2p:{mute}"), WIDE).await;
    }
    let tries = "SELECT DISTINCT tries || ' ' || last_reason FROM candidate_tries";
    // A relay that has sent events is unreachable as well: our own uplink is down.
    shows_an_event(&mut kit, &format!("ws://known.i2p:{mute}"), 81).await;
    cycle(&mut kit, &networks, &config::Validator::default()).await;
    assert_eq!(texts(&owner, tries).await, ["0 uplink"]);
    assert_eq!(number(&owner, "SELECT count(*) FROM candidates").await, 6);
    assert!(came.load(Ordering::SeqCst) < 12, "one check of the uplink serves all tries that wait for it");

    // Another such relay is reachable: now the failures count against the candidates.
    shows_an_event(&mut kit, &format!("ws://there.i2p:{known}"), 82).await;
    superuser.batch_execute("UPDATE candidate_tries SET next_try_at = now()").await.unwrap();
    cycle(&mut kit, &networks, &config::Validator::default()).await;
    assert_eq!(texts(&owner, tries).await, ["1 timeout"]);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_the_candidates_and_try_each_once() {
    let mut kit = Kit::new().await;
    let proxy = proxy().await;
    let mut networks = networks(proxy.address(), 30, 30);
    networks.i2p.relays_at_once = 5.try_into().unwrap();
    let (port, came) = speaker(&mut kit, None, eose).await;
    let writer = kit.writer(RelayJournal);
    for n in 0..40 {
        find(&writer, &format!("ws://h{n}.i2p:{port}"), WIDE).await;
    }
    let (one, two) = (
        validator(&mut kit, &networks, config::Validator::default()),
        validator(&mut kit, &networks, config::Validator::default()),
    );
    let running = CancellationToken::new();
    let (first, second) = tokio::join!(one.cycle(&running), two.cycle(&running));
    assert_eq!((first.unwrap(), second.unwrap()), (CycleOutcome::Idle, CycleOutcome::Idle));
    let owner = kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT count(*) FROM relays").await, 40);
    assert_eq!(came.load(Ordering::SeqCst), 40);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_no_answer_and_gives_back_what_was_taken() {
    let mut kit = Kit::new().await;
    let proxy = proxy().await;
    let networks = networks(proxy.address(), 300, 300);
    let (port, came) = peer(&mut kit, |stream| async move {
        let _open = stream;
        pending::<()>().await;
    })
    .await;
    let writer = kit.writer(RelayJournal);
    for n in 0..5 {
        find(&writer, &format!("ws://h{n}.i2p:{port}"), WIDE).await;
    }
    let validator = validator(&mut kit, &networks, config::Validator::default());
    let drain = CancellationToken::new();
    let stop = async {
        eventually("all are dialled", || async { came.load(Ordering::SeqCst) == 5 }).await;
        // The lease covers the longest try with these timeouts.
        let held = "SELECT count(*) FROM lease WHERE expires_at > now() + interval '30 minutes'";
        assert_eq!(number(&kit.database.owner().await, held).await, 5);
        drain.cancel();
        Instant::now()
    };
    let (ended, stopped) = tokio::join!(validator.cycle(&drain), stop);
    assert_eq!(ended.unwrap(), CycleOutcome::Idle);
    assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
    let owner = kit.database.owner().await;
    for (sql, expected) in [
        ("SELECT count(*) FROM candidates", 5),
        ("SELECT count(*) FROM candidate_tries", 0),
        ("SELECT count(*) FROM lease", 0),
    ] {
        assert_eq!(number(&owner, sql).await, expected, "{sql}");
    }
}
