//! Deletion, expiration and vanish requests: the archive keeps every event, the public view hides what the
//! requests cover, and requests to vanish are carried out only if the settings say so.

use std::collections::BTreeSet;

use nostr_sdk::{Event, EventBuilder, JsonUtil as _, Keys, Kind, Tag, Timestamp};
use quipu::base::Refusals;
use quipu::lifecycle::{CycleOutcome, Service as _};
use quipu::services::archive::react::Vanisher;
use quipu::services::archive::read;
use quipu::store::ingest::KnownEvent;
use quipu::store::lease::Leases;
use quipu::store::removal::{ErasureSubject, RemovedRows, erase};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;

use super::kit::{Kit, note, number, offered, projection, texts};
use crate::support::rounds::rounds;

/// A time in the middle of these tests' events.
const T: u64 = 1_700_000_000;

const OWN: &str = "wss://archive.example";

fn event(keys: &Keys, kind: u16, created_at: u64, tags: &[&[&str]]) -> Event {
    EventBuilder::new(Kind::from(kind), "")
        .tags(tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap()))
        .allow_self_tagging()
        .custom_created_at(Timestamp::from_secs(created_at))
        .sign_with_keys(keys)
        .unwrap()
}

async fn store(kit: &mut Kit, events: &[Event]) -> u32 {
    kit.intake().offer(None, offered(events), Refusals::default()).await.unwrap().stored
}

/// Which of these events a relay may have removed between a comparison and the check of it.
#[tokio::test]
async fn n_77_events_that_relays_remove_by_themselves_or_on_request_are_told_from_others() {
    let mut kit = Kit::new().await;
    let [keys, other, gone] = [(); 3].map(|()| Keys::generate());
    let (past, future) = ((T + 10).to_string(), (T + 1_000).to_string());
    let [past, future] = [&past, &future].map(|at| ["expiration", at.as_str()]);
    let kept = [
        note(&keys, T, "ordinary"),
        note(&keys, T + 1, "somebody else asks to delete it"),
        event(&keys, 1, T, &[&future]),
        note(&gone, T + 50, "signed after the request to vanish"),
    ];
    let deleted = note(&keys, T + 2, "its author asks to delete it");
    let mut removable = vec![deleted.clone(), event(&keys, 1, T, &[&past]), note(&gone, T + 1, "vanished")];
    removable.extend([0, 3, 10_002, 30_023].map(|kind| event(&keys, kind, T, &[&["d", "x"]])));
    let requests = [
        event(&keys, 5, T + 3, &[&["e", &deleted.id.to_hex()]]),
        event(&other, 5, T + 3, &[&["e", &kept[1].id.to_hex()]]),
        event(&gone, 62, T + 40, &[&["relay", "ALL_RELAYS"]]),
    ];
    for events in [&kept[..], &removable, &requests] {
        assert_eq!(store(&mut kit, events).await as usize, events.len());
    }
    let known = |event: &Event| {
        // The query does not ask for the number.
        (KnownEvent { number: 0, created_at: event.created_at.as_secs().cast_signed() }, event.id)
    };
    let now = i64::try_from(T).unwrap() + 100;
    for (events, is_removable) in [(&kept[..], false), (&removable, true)] {
        for event in events {
            let found = read::removable(&kit.pools.session, &[known(event)], now).await.unwrap();
            assert_eq!(found == 1, is_removable, "{}", event.as_json());
        }
    }
    let all: Vec<_> = kept.iter().chain(&removable).map(known).collect();
    assert_eq!(read::removable(&kit.pools.session, &all, now).await.unwrap(), removable.len());
}

/// Ids in the view `public_events`.
async fn public(kit: &Kit, now_s: u64, own: &[&str]) -> BTreeSet<String> {
    let client = kit.database.owner().await;
    let now_s = i64::try_from(now_s).unwrap();
    let rows = client.query("SELECT encode(id, 'hex') FROM public_events($1, $2)", &[&now_s, &own]).await;
    rows.unwrap().iter().map(|row| row.get(0)).collect()
}

fn ids<'a>(events: impl IntoIterator<Item = &'a Event>) -> BTreeSet<String> {
    events.into_iter().map(|event| event.id.to_hex()).collect()
}

async fn stored(kit: &Kit) -> BTreeSet<String> {
    texts(&kit.database.owner().await, "SELECT encode(id, 'hex') FROM events").await.into_iter().collect()
}

fn vanisher(kit: &Kit, own: &[&str]) -> Vanisher {
    let own_urls = own.iter().map(|url| (*url).to_owned()).collect();
    Vanisher::new(kit.pools.clone(), Leases::new(kit.pools.write.clone()), own_urls)
}

/// Runs the vanisher until no request is left.
async fn vanish(kit: &Kit, own: &[&str]) {
    let vanisher = vanisher(kit, own);
    while vanisher.cycle(&CancellationToken::new()).await.unwrap() == CycleOutcome::More {}
}

#[tokio::test]
async fn n_09_1_the_author_alone_deletes_and_the_archive_keeps_what_the_public_is_not_shown() {
    let mut kit = Kit::new().await;
    let (author, other) = (Keys::generate(), Keys::generate());
    let notes = [note(&author, T, "one"), note(&author, T + 9_000, "two"), note(&other, T, "three")];
    let all: Vec<String> = notes.iter().map(|note| note.id.to_hex()).collect();
    let request = event(&author, 5, T + 10, &[&["e", &all[0]], &["e", &all[2]], &["e", "no id"]]);
    let events = [&notes[..], std::slice::from_ref(&request)].concat();
    assert_eq!(store(&mut kit, &events).await, 4);
    assert_eq!(public(&kit, T, &[]).await, ids([&notes[1], &notes[2], &request]));
    assert_eq!(stored(&kit).await, ids(&events), "the archive keeps every event");
    let requests = "SELECT encode(target, 'hex') || encode(request_id, 'hex') || encode(pubkey, 'hex') || created_at FROM deletion_requests ORDER BY 1";
    let mut expected = [&all[0], &all[2]]
        .map(|target| format!("{target}{}{}{}", request.id.to_hex(), author.public_key().to_hex(), T + 10));
    expected.sort();
    assert_eq!(texts(&kit.database.owner().await, requests).await, expected);
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn n_09_2_an_address_means_its_versions_up_to_the_request_and_only_the_requesters_own() {
    let mut kit = Kit::new().await;
    let (author, other) = (Keys::generate(), Keys::generate());
    let name = author.public_key().to_hex();
    let long = "d".repeat(4_000);
    let versions: Vec<Event> =
        (0..3).map(|n| event(&author, 30_023, T + n, &[&["d", "a"], &["d", "b"]])).collect();
    let kept = [
        event(&author, 30_023, T, &[&["d", "b"]]),
        event(&other, 30_023, T, &[&["d", "a"]]),
        event(&author, 1, T, &[&["d", "a"]]),
        event(&other, 0, T, &[]),
    ];
    let gone = [
        event(&author, 0, T, &[]),
        event(&author, 10_002, T, &[&["d", "ignored"]]),
        event(&author, 30_000, T, &[]),
        event(&author, 30_001, T, &[&["d", &long]]),
    ];
    let request = event(
        &author,
        5,
        T + 1,
        &[
            &["a", &format!("30023:{name}:a")],
            &["a", &format!("0:{name}:")],
            &["a", &format!("10002:{name}:")],
            &["a", &format!("30000:{name}:")],
            &["a", &format!("30001:{name}:{long}")],
            &["a", &format!("1:{name}:a")],
            &["a", &format!("30023:{}:a", other.public_key().to_hex())],
            &["a", &format!("0:{}:", other.public_key().to_hex())],
        ],
    );
    let events = [&versions[..], &kept, &gone, std::slice::from_ref(&request)].concat();
    store(&mut kit, &events).await;
    let mut expected = ids(&kept);
    expected.extend(ids([&versions[2], &request]));
    assert_eq!(public(&kit, T, &[]).await, expected);
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn n_09_3_and_4_and_n_62_5_a_request_is_not_deleted_by_a_request() {
    let mut kit = Kit::new().await;
    let author = Keys::generate();
    let target = note(&author, T, "x");
    let first = event(&author, 5, T + 1, &[&["e", &target.id.to_hex()]]);
    let vanish = event(&author, 62, T - 1, &[&["relay", OWN]]);
    let second = event(&author, 5, T + 2, &[&["e", &first.id.to_hex()], &["e", &vanish.id.to_hex()]]);
    store(&mut kit, &[target, first.clone(), vanish.clone(), second.clone()]).await;
    assert_eq!(public(&kit, T, &[OWN]).await, ids([&first, &vanish, &second]));
}

#[tokio::test]
async fn n_09_5_a_request_that_comes_first_counts_and_e_means_any_time() {
    let mut kit = Kit::new().await;
    let author = Keys::generate();
    let late = note(&author, T + 5_000_000, "signed after the request");
    let request = event(&author, 5, T, &[&["e", &late.id.to_hex()]]);
    store(&mut kit, std::slice::from_ref(&request)).await;
    assert_eq!(store(&mut kit, &[late]).await, 1, "the archive stores it");
    assert_eq!(public(&kit, T, &[]).await, ids([&request]));
}

#[tokio::test]
async fn n_40_5_the_first_tag_decides_what_is_no_number_is_none_and_at_the_second_itself_it_is_over() {
    let mut kit = Kit::new().await;
    let author = Keys::generate();
    let at = (T + 100).to_string();
    let expiring =
        event(&author, 1, T, &[&["t", "expiration"], &["expiration", &at], &["expiration", "9999999999"]]);
    let never = [
        event(&author, 1, T + 1, &[&["expiration", "soon"], &["expiration", "1"]]),
        event(&author, 1, T + 2, &[&["expiration", "-5"]]),
        event(&author, 1, T + 3, &[&["expiration"]]),
        event(&author, 1, T + 4, &[&["expiration", "99999999999999999999999"]]),
        event(&author, 1, T + 5, &[&["x", "expiration", "1"]]),
    ];
    let events = [&never[..], std::slice::from_ref(&expiring)].concat();
    assert_eq!(store(&mut kit, &events).await, 6, "events that expired long ago are archived too");
    assert_eq!(public(&kit, T + 99, &[]).await, ids(&events));
    assert_eq!(public(&kit, T + 100, &[]).await, ids(&never));
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn n_62_1_a_request_reaches_all_relays_or_the_ones_it_names_however_they_are_spelt() {
    let mut kit = Kit::new().await;
    // Notes of keys whose request names all relays, this one, or other relays only.
    let [mut all, mut own, mut elsewhere] = [const { BTreeSet::new() }; 3];
    for (tags, reached) in [
        (&[&["relay", "ALL_RELAYS"][..]][..], 0),
        (&[&["relay", "wss://other.example"], &["relay", "WSS://Archive.Example.:443/"]], 1),
        (&[&["relay", "wss://other.example"], &["relay", "wss://archive.example/path"]], 2),
        (&[&["relay", "all_relays"]], 2),
        (&[&["relay"], &["r", OWN]], 2),
        (&[], 2),
    ] {
        let keys = Keys::generate();
        let (note, request) = (note(&keys, T, "x"), event(&keys, 62, T, tags));
        [&mut all, &mut own, &mut elsewhere][reached].insert(note.id.to_hex());
        store(&mut kit, &[note, request]).await;
    }
    let hidden = async |urls: &[&str]| {
        let shown = public(&kit, T, urls).await;
        all.iter()
            .chain(&own)
            .chain(&elsewhere)
            .filter(|id| !shown.contains(*id))
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(hidden(&[]).await, all);
    assert_eq!(hidden(&[OWN]).await, &all | &own);
    assert_eq!(stored(&kit).await.len(), 12, "without the setting no event is erased");
}

/// The expected result for random events, computed independently from the rules.
struct Oracle<'a>(&'a [Event]);

impl Oracle<'_> {
    fn shows(&self, event: &Event, now_s: u64, own: &[&str]) -> bool {
        let kind = event.kind.as_u16();
        let first = |event: &Event, name: &str| {
            let tag = event.tags.iter().find(|tag| tag.as_slice()[0] == name)?;
            Some(tag.as_slice().get(1).cloned().unwrap_or_default())
        };
        let expires: Option<u64> = first(event, "expiration").and_then(|at| at.parse().ok());
        if expires.is_some_and(|at| at <= now_s) {
            return false;
        }
        let d = if (30_000..40_000).contains(&kind) {
            first(event, "d").unwrap_or_default()
        } else {
            String::new()
        };
        let address =
            (matches!(kind, 0 | 3) || (10_000..20_000).contains(&kind) || (30_000..40_000).contains(&kind))
                .then(|| format!("{kind}:{}:{d}", event.pubkey));
        let names = |request: &Event, name: &str, value: &str| {
            request.tags.iter().any(|tag| matches!(tag.as_slice(), [n, v, ..] if n == name && v == value))
        };
        let of_author = || self.0.iter().filter(|request| request.pubkey == event.pubkey);
        let deleted = of_author().filter(|request| request.kind == Kind::from(5)).any(|request| {
            names(request, "e", &event.id.to_hex())
                || address
                    .as_ref()
                    .is_some_and(|a| names(request, "a", a) && event.created_at <= request.created_at)
        });
        let vanished = of_author().filter(|request| request.kind == Kind::from(62)).any(|request| {
            event.created_at <= request.created_at
                && (names(request, "relay", "ALL_RELAYS")
                    || own.iter().any(|url| names(request, "relay", url)))
        });
        (kind == 5 || kind == 62 || !deleted) && (kind == 62 || !vanished)
    }
}

/// Random events of few authors, addresses and seconds, so that requests often match other events.
fn random(dice: &mut StdRng, authors: &[Keys], count: usize) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    while events.len() < count {
        let keys = &authors[dice.random_range(0..authors.len())];
        let at = T + dice.random_range(0..30) * 86_400;
        let d = ["", "a", "b"][dice.random_range(0..3)];
        let mut tags: Vec<Vec<String>> = Vec::new();
        let mut tag = |words: &[&str]| tags.push(words.iter().map(|word| (*word).to_owned()).collect());
        let kind = [0, 1, 1, 1, 3, 5, 5, 10_002, 30_023, 30_023, 62][dice.random_range(0..11)];
        if kind == 62 && dice.random_ratio(3, 4) {
            continue;
        }
        match kind {
            5 => {
                for _ in 0..dice.random_range(0..4) {
                    if let Some(target) = events.get(dice.random_range(0..count)) {
                        tag(&["e", &target.id.to_hex()]);
                    }
                    let owner = authors[dice.random_range(0..authors.len())].public_key();
                    let kind = [0, 1, 3, 10_002, 30_023][dice.random_range(0..5)];
                    tag(&["a", &format!("{kind}:{owner}:{d}")]);
                }
            }
            62 => tag(&["relay", ["ALL_RELAYS", OWN, "wss://other.example"][dice.random_range(0..3)]]),
            30_023 => tag(&["d", d]),
            _ => {}
        }
        if dice.random_ratio(1, 5) {
            tag(&["expiration", &(T + dice.random_range(0..30) * 86_400).to_string()]);
        }
        let tags: Vec<Vec<&str>> = tags.iter().map(|tag| tag.iter().map(String::as_str).collect()).collect();
        let tags: Vec<&[&str]> = tags.iter().map(Vec::as_slice).collect();
        events.push(event(keys, kind, at, &tags));
    }
    events
}

#[tokio::test]
async fn the_public_view_follows_the_rules_for_random_events_in_any_order() {
    for seed in 0..4 * rounds() {
        let mut dice = StdRng::seed_from_u64(seed);
        let authors: Vec<Keys> = (0..4).map(|_| Keys::generate()).collect();
        let events = random(&mut dice, &authors, 300);
        let mut kit = Kit::new().await;
        // Newest first, as a crawl delivers them, in small batches.
        let mut crawled = events.clone();
        crawled.sort_by_key(|event| std::cmp::Reverse(event.created_at));
        for batch in crawled.chunks(37) {
            store(&mut kit, batch).await;
        }
        let oracle = Oracle(&events);
        for (now_s, own) in
            [(T, &[][..]), (T + 15 * 86_400, &[OWN]), (T + 99 * 86_400, &["wss://third.example"])]
        {
            let expected = ids(events.iter().filter(|event| oracle.shows(event, now_s, own)));
            assert_eq!(public(&kit, now_s, own).await, expected, "seed {seed}, {now_s}, {own:?}");
        }
        // After erasures the projection still equals a replay.
        let owner = kit.database.urls().owner.unwrap();
        erase(&owner, ErasureSubject::Pubkey(authors[0].public_key().to_bytes(), 1_701_000_000), "x")
            .await
            .unwrap();
        erase(&owner, ErasureSubject::Event(events[7].id.to_bytes()), "x").await.unwrap();
        vanish(&kit, &[OWN]).await;
        kit.project().await;
        assert_eq!(kit.problems().await, Vec::<String>::new(), "seed {seed}");
        let mut client = kit.database.owner().await;
        client.batch_execute("DELETE FROM deletions; DELETE FROM expirations").await.unwrap();
        projection("requests").rebuild(&mut client).await.unwrap();
        assert_eq!(kit.problems().await, Vec::<String>::new(), "seed {seed}, rebuilt");
    }
}

#[tokio::test]
async fn n_62_2_and_3_an_honoured_request_takes_what_it_says_once_and_nothing_of_it_comes_back() {
    let mut kit = Kit::new().await;
    let relay = kit.relays(&["one"]).await[0];
    let (author, other) = (Keys::generate(), Keys::generate());
    let old = [
        note(&author, T, "x"),
        event(&author, 5, T, &[&["e", &"0".repeat(64)]]),
        event(&author, 1, T, &[&["expiration", "1"]]),
    ];
    let request = event(&author, 62, T, &[&["relay", "ALL_RELAYS"]]);
    let kept = [note(&author, T + 1, "after"), note(&other, T, "of another"), request.clone()];
    let events = [&old[..], &kept].concat();
    let intake = kit.intake();
    intake.offer(Some(relay), offered(&events), Refusals::default()).await.unwrap();
    for _ in 0..2 {
        vanish(&kit, &[]).await;
        assert_eq!(stored(&kit).await, ids(&kept));
    }
    let client = kit.database.owner().await;
    let record = "SELECT encode(event_id, 'hex') || ' ' || until || ' ' || detail::text FROM erasure WHERE kind = 'vanish'";
    let expected = format!("{} {T} {{\"events\": 3, \"sightings\": 3}}", request.id.to_hex());
    assert_eq!(texts(&client, record).await, [expected], "recorded once");
    for (table, rows) in [("deletions", 0), ("expirations", 0), ("vanish_requests", 1)] {
        assert_eq!(number(&client, &format!("SELECT count(*) FROM {table}")).await, rows, "{table}");
    }
    // By crawl and by import, together with an event that the key signed for that time and that is new to the
    // archive.
    let unseen = note(&author, T - 5, "never seen");
    let again = [&events[..], std::slice::from_ref(&unseen)].concat();
    for relay in [Some(relay), None] {
        let told = intake.offer(relay, offered(&again), Refusals::default()).await.unwrap();
        assert_eq!((told.stored, told.known), (0, 7));
    }
    assert_eq!(stored(&kit).await, ids(&kept));
    let later = event(&author, 62, T + 1, &[&["relay", "ALL_RELAYS"]]);
    intake.offer(Some(relay), offered(std::slice::from_ref(&later)), Refusals::default()).await.unwrap();
    vanish(&kit, &[]).await;
    assert_eq!(
        stored(&kit).await,
        ids([&kept[1], &request, &later]),
        "each request is carried out separately"
    );
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_interrupted_vanish_request_is_completed_later_and_by_one_of_two_processes() {
    let mut kit = Kit::new().await;
    let author = Keys::generate();
    let notes: Vec<Event> = (0..20).map(|n| note(&author, T + n, "x")).collect();
    let request = event(&author, 62, T + 9, &[&["relay", OWN]]);
    store(&mut kit, &[&notes[..], std::slice::from_ref(&request)].concat()).await;
    // The erasure waits for a reader that locks the sightings, and its connection is cut there.
    let blocker = kit.superuser().await;
    blocker
        .batch_execute(
            "BEGIN; LOCK TABLE sightings IN ACCESS SHARE MODE; LOCK TABLE deletions IN EXCLUSIVE MODE",
        )
        .await
        .unwrap();
    let cutting = async {
        kit.waiting(1).await;
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        assert_eq!(number(&blocker, cut).await, 1);
    };
    let first = vanisher(&kit, &[OWN]);
    let stop = CancellationToken::new();
    let (cut_short, ()) = tokio::join!(first.cycle(&stop), cutting);
    assert!(cut_short.is_err());
    blocker.batch_execute("COMMIT").await.unwrap();
    assert_eq!(stored(&kit).await.len(), 21, "all or nothing");
    assert_eq!(number(&blocker, "SELECT count(*) FROM erasure").await, 0);
    // The lease of a process that died expires. When two processes meet, one of them carries the request out.
    blocker.batch_execute("TRUNCATE lease").await.unwrap();
    let subject = ErasureSubject::Vanish {
        request: request.id.to_bytes(),
        pubkey: author.public_key().to_bytes(),
        until: request.created_at.as_secs().cast_signed(),
    };
    let owner = kit.database.urls().owner.unwrap();
    let (one, other) = tokio::join!(erase(&owner, subject, "x"), erase(&owner, subject, "x"));
    let mut both = [one.unwrap(), other.unwrap()];
    both.sort_by_key(|left| left.events);
    assert_eq!(both, [RemovedRows::default(), RemovedRows { events: 10, sightings: 0 }]);
    vanish(&kit, &[OWN]).await;
    assert_eq!(number(&blocker, "SELECT count(*) FROM erasure").await, 1);
    let mut expected = ids(&notes[10..]);
    expected.insert(request.id.to_hex());
    assert_eq!(stored(&kit).await, expected);
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_request_to_vanish_that_cannot_be_carried_out_does_not_stop_the_others() {
    let mut kit = Kit::new().await;
    let keys = [Keys::generate(), Keys::generate(), Keys::generate()];
    let requests: Vec<Event> =
        keys.iter().zip(0..).map(|(key, n)| event(key, 62, T + n, &[&["relay", "ALL_RELAYS"]])).collect();
    let notes: Vec<Event> = keys.iter().map(|key| note(key, T - 1, "before")).collect();
    store(&mut kit, &[&requests[..], &notes[..]].concat()).await;
    let fail = format!(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'planted'; END $$;
         CREATE TRIGGER fail BEFORE INSERT ON erasure FOR EACH ROW WHEN (NEW.event_id = '\\x{}') EXECUTE FUNCTION fail()",
        requests[0].id.to_hex()
    );
    kit.superuser().await.batch_execute(&fail).await.unwrap();
    vanish(&kit, &[]).await;
    let left = ids(requests.iter().chain([&notes[0]]));
    assert_eq!(stored(&kit).await, left, "one failed, two were carried out");
}
