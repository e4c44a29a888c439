//! Candidates in the database: limited, recorded once, updated in one commit with their journal, and equal to
//! a replay of it.

use quipu::base::RelayUrl;
use quipu::config::Implementation;
use quipu::lifecycle::{CycleOutcome, Service as _};
use quipu::services::archive::command::{CandidateBounds, RelayCommand};
use quipu::services::archive::metrics::InitializerMetrics;
use quipu::services::archive::react::Initializer;
use quipu::services::archive::{Finding, RelayAnswer, RelayJournal, read};
use quipu::store::append::Writer;
use quipu::telemetry::Metrics;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::store::kit::{Kit, number, projection, texts};

pub(super) const WIDE: CandidateBounds =
    CandidateBounds { waiting_max: 1_000, domain_max: 1_000, day_max: 1_000, domain_day_max: 1_000 };

pub(super) fn url(text: &str) -> RelayUrl {
    RelayUrl::parse(text).unwrap()
}

pub(super) async fn find(writer: &Writer<RelayJournal>, text: &str, bounds: CandidateBounds) -> Finding {
    let detail = json!({ "source": "event", "event": "00" });
    match writer.append(RelayCommand::Find { url: url(text), detail, bounds }).await.unwrap() {
        RelayAnswer::Found(finding) => finding,
        other => panic!("{other:?}"),
    }
}

async fn add(writer: &Writer<RelayJournal>, text: &str, source: &'static str) -> bool {
    match writer.append(RelayCommand::Add { url: url(text), source }).await.unwrap() {
        RelayAnswer::Known { is_new, .. } => is_new,
        other => panic!("{other:?}"),
    }
}

async fn drop_it(writer: &Writer<RelayJournal>, text: &str) {
    let detail = json!({ "reason": "silent", "tries": 12 });
    writer.append(RelayCommand::Drop { url: text.to_owned(), detail }).await.unwrap();
}

const WAITING: &str = "SELECT url FROM candidates ORDER BY 1";
const FACTS: &str = "SELECT kind || ' ' || coalesce(url, '-') FROM relay_log ORDER BY position";

#[tokio::test]
async fn a_candidate_is_found_once_and_leaves_in_the_commit_that_makes_it_a_relay_or_gives_it_up() {
    let mut kit = Kit::new().await;
    let writer = kit.writer(RelayJournal);
    let owner = kit.database.owner().await;
    assert_eq!(find(&writer, "wss://a.example.com", WIDE).await, Finding::New);
    assert_eq!(find(&writer, "wss://a.example.com", WIDE).await, Finding::Known);
    assert_eq!(find(&writer, "wss://b.example.com", WIDE).await, Finding::New);
    assert_eq!(texts(&owner, WAITING).await, ["wss://a.example.com", "wss://b.example.com"]);

    assert!(add(&writer, "wss://a.example.com", "validator").await);
    assert_eq!(find(&writer, "wss://a.example.com", WIDE).await, Finding::Known);
    drop_it(&writer, "wss://b.example.com").await;
    drop_it(&writer, "wss://b.example.com").await;
    drop_it(&writer, "wss://never.example.com").await;
    assert_eq!(texts(&owner, WAITING).await, [""; 0]);
    assert_eq!(find(&writer, "wss://b.example.com", WIDE).await, Finding::Dropped);
    let named = ["wss://b.example.com", "wss://c.example.com"].map(str::to_owned);
    let told = read::unknown_urls(&kit.pools.session, &named);
    assert_eq!(told.await.unwrap(), ["wss://c.example.com"]);
    assert_eq!(
        texts(&owner, FACTS).await,
        [
            "found wss://a.example.com",
            "found wss://b.example.com",
            "added wss://a.example.com",
            "dropped wss://b.example.com",
        ]
    );
    assert_eq!(kit.problems().await, Vec::<String>::new());

    // After a month the URL may be found again.
    let superuser = kit.superuser().await;
    superuser
        .batch_execute(
            "SET session_replication_role = replica; ALTER TABLE relay_log DISABLE TRIGGER refuse_change;
             UPDATE relay_log SET recorded_at = recorded_at - interval '31 days' WHERE kind = 'dropped';
             ALTER TABLE relay_log ENABLE ALWAYS TRIGGER refuse_change",
        )
        .await
        .unwrap();
    assert_eq!(find(&writer, "wss://b.example.com", WIDE).await, Finding::New);
    assert_eq!(texts(&owner, WAITING).await, ["wss://b.example.com"]);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn candidates_are_bounded_in_all_and_a_domain_and_a_day() {
    let mut kit = Kit::new().await;
    let writer = kit.writer(RelayJournal);
    let bounds = CandidateBounds { waiting_max: 6, domain_max: 3, day_max: 8, domain_day_max: 8 };
    let mut found = Vec::new();
    for n in 0..5 {
        found.push(find(&writer, &format!("wss://one.example.com/{n}"), bounds).await);
    }
    assert_eq!(found[..3], [Finding::New; 3]);
    assert_eq!(found[3..], [Finding::DomainFull; 2]);
    assert_eq!(
        find(&writer, "wss://sub.domain.one.example.com:444", bounds).await,
        Finding::DomainFull,
        "whatever its sub-domain and port"
    );
    // All at once, as one batch: the limits hold within a batch.
    let mut callers = JoinSet::new();
    for n in 0..20 {
        let writer = writer.clone();
        callers.spawn(async move { find(&writer, &format!("wss://relay.example{n}.com"), bounds).await });
    }
    let told = callers.join_all().await;
    assert_eq!(told.iter().filter(|finding| **finding == Finding::New).count(), 3);
    assert_eq!(told.iter().filter(|finding| **finding == Finding::Full).count(), 17);
    // Slots are free again, but the daily limit allows only two more.
    for n in 0..3 {
        drop_it(&writer, &format!("wss://one.example.com/{n}")).await;
    }
    let mut again = Vec::new();
    for n in 0..3 {
        again.push(find(&writer, &format!("ws://[2001:db8:{n}::1]"), bounds).await);
    }
    assert_eq!(again, [Finding::New, Finding::New, Finding::Full]);
    // Each network has limits of its own.
    assert_eq!(find(&writer, "ws://one.i2p", bounds).await, Finding::New);
    let owner = kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT count(*) FROM candidates").await, 6);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn b_7_sub_domains_of_one_domain_have_one_share_of_a_day() {
    let mut kit = Kit::new().await;
    let writer = kit.writer(RelayJournal);
    let bounds = CandidateBounds { waiting_max: 100, domain_max: 2, day_max: 100, domain_day_max: 5 };
    // Each is dropped at once, as candidates with private addresses are, so that none of them waits.
    let mut found = Vec::new();
    for n in 0..8 {
        let text = format!("wss://s{n}.evil.co.uk");
        found.push(find(&writer, &text, bounds).await);
        drop_it(&writer, &text).await;
    }
    assert_eq!(found, [[Finding::New; 5].as_slice(), &[Finding::DomainFull; 3]].concat());
    assert_eq!(find(&writer, "wss://other.co.uk", bounds).await, Finding::New);
    let owner = kit.database.owner().await;
    let domains = "SELECT DISTINCT detail ->> 'domain' FROM relay_log WHERE kind = 'found' ORDER BY 1";
    assert_eq!(texts(&owner, domains).await, ["evil.co.uk", "other.co.uk"]);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_operator_who_names_a_discovered_relay_makes_it_a_named_one_and_that_is_a_fact() {
    let mut kit = Kit::new().await;
    let writer = kit.writer(RelayJournal);
    let owner = kit.database.owner().await;
    let source = "SELECT coalesce(source, '-') FROM relays ORDER BY url";
    assert!(add(&writer, "wss://a.example.com", "validator").await);
    assert!(add(&writer, "wss://b.example.com", "seed").await);
    assert!(!add(&writer, "wss://a.example.com", "validator").await);
    assert!(!add(&writer, "wss://b.example.com", "validator").await);
    assert!(!add(&writer, "wss://a.example.com", "seed").await);
    assert_eq!(texts(&owner, source).await, ["validator", "seed"], "a seed file names nothing");
    // Two concurrent commands record one fact.
    let (one, two) = (kit.writer(RelayJournal), kit.writer(RelayJournal));
    let told =
        tokio::join!(add(&one, "wss://a.example.com", "operator"), add(&two, "wss://a.example.com", "seed"));
    assert_eq!(told, (false, false));
    assert_eq!(number(&owner, "SELECT count(*) FROM relay_log WHERE kind = 'named'").await, 1);
    assert_eq!(number(&owner, "SELECT count(*) FROM relays WHERE quipu_is_named(source)").await, 1);
    assert_eq!(kit.problems().await, Vec::<String>::new());
    let mut owner = owner;
    let before = texts(&owner, "SELECT r::text FROM relays r ORDER BY 1").await;
    projection("relays").rebuild(&mut owner).await.unwrap();
    assert_eq!(texts(&owner, "SELECT r::text FROM relays r ORDER BY 1").await, before);
}

/// Four processes find, add and drop the same few URLs in random order.
#[tokio::test]
async fn whatever_the_order_of_commits_candidates_equal_a_replay_and_a_rebuild_changes_nothing() {
    let mut kit = Kit::new().await;
    let mut load = JoinSet::new();
    for process in 0..4 {
        let writer = kit.writer(RelayJournal);
        load.spawn(async move {
            let mut dice = StdRng::seed_from_u64(process);
            for _ in 0..150 {
                let text = format!("wss://h{}.example.com", dice.random_range(0..40));
                match dice.random_range(0..20) {
                    0 => drop(add(&writer, &text, "validator").await),
                    1..=6 => drop_it(&writer, &text).await,
                    _ => drop(find(&writer, &text, WIDE).await),
                }
            }
        });
    }
    // Dropped URLs may be found again at once here, so that many cycles follow each other.
    let superuser = kit.superuser().await;
    superuser.batch_execute("ALTER TABLE relay_log DISABLE TRIGGER refuse_change").await.unwrap();
    while !load.is_empty() {
        superuser
            .batch_execute("UPDATE relay_log SET recorded_at = recorded_at - interval '31 days' WHERE kind = 'dropped' AND recorded_at > now() - interval '1 day'")
            .await
            .unwrap();
        while load.try_join_next().is_some() {}
    }
    superuser.batch_execute("ALTER TABLE relay_log ENABLE ALWAYS TRIGGER refuse_change").await.unwrap();
    assert_eq!(kit.problems().await, Vec::<String>::new());
    let mut owner = kit.database.owner().await;
    assert!(number(&owner, "SELECT count(*) FROM relay_log WHERE kind = 'dropped'").await > 40);
    let rows = "SELECT c::text FROM candidates c ORDER BY 1";
    let before = texts(&owner, rows).await;
    assert!(!before.is_empty());
    owner
        .batch_execute("DELETE FROM candidates WHERE url = (SELECT min(url) FROM candidates)")
        .await
        .unwrap();
    assert_eq!(kit.problems().await.len(), 1);
    projection("candidates").rebuild(&mut owner).await.unwrap();
    assert_eq!(texts(&owner, rows).await, before);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_seed_that_the_database_refuses_keeps_no_other_seed_out() {
    let mut kit = Kit::new().await;
    let fail = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'planted' USING ERRCODE = '22023'; END $$;
                CREATE TRIGGER fail BEFORE INSERT ON relays FOR EACH ROW WHEN (NEW.url LIKE '%b.example%') EXECUTE FUNCTION fail()";
    kit.superuser().await.batch_execute(fail).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("seeds.txt");
    std::fs::write(&file, "wss://a.example.com\nwss://b.example.com\nws://192.168.1.5\nno relay\nwss://c.example.com\nwss://a.example.com/\n").unwrap();
    let (metrics, counted) = (Metrics::new("test"), InitializerMetrics::default());
    metrics.register(|registry| counted.register(registry));
    let initializer = Initializer {
        implementation: Implementation::find_built_in("bigbrotr").unwrap(),
        seed_file: file.to_str().unwrap().to_owned(),
        relays: kit.writer(RelayJournal),
        metrics: counted.clone(),
    };
    assert_eq!(initializer.cycle(&CancellationToken::new()).await.unwrap(), CycleOutcome::Done);
    let known = texts(&kit.database.owner().await, "SELECT url FROM relays ORDER BY 1").await;
    assert_eq!(known, ["ws://192.168.1.5", "wss://a.example.com", "wss://c.example.com"]);
    let exposed = metrics.encode().unwrap();
    for (outcome, lines) in [
        ("new", 3),
        ("known", 0),
        ("repeated", 1),
        ("malformed", 1),
        ("refused_by_database", 1),
        ("private_address", 1),
    ] {
        let line = format!("quipu_archive_seeds_total{{outcome=\"{outcome}\"}} {lines}\n");
        assert!(exposed.contains(&line), "{line}{exposed}");
    }
}
