//! What people and their programs can do by SQL: read, and offer events and relays.

use nostr_sdk::{Event, Keys};
use quipu::base::RelayUrl;
use quipu::lifecycle::Service as _;
use quipu::services::archive::react::Offers;
use quipu::services::archive::read::{self, relays_to_crawl};
use quipu::services::archive::seeds::Seeds;
use quipu::store::Relay;
use quipu::store::embedded::SharedRole;
use quipu::store::lease::Leases;
use quipu::store::owner::connect;
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use super::kit::{Kit, note, number, texts};

const RELAY: &str = "wss://relay.example.com";

async fn offer(client: &Client, event: &Event, content: &str) -> Result<bool, tokio_postgres::Error> {
    let (id, pubkey) = (event.id.to_bytes().to_vec(), event.pubkey.to_bytes().to_vec());
    let (created_at, kind) =
        (i64::try_from(event.created_at.as_secs()).unwrap(), i32::from(event.kind.as_u16()));
    let tags = json!(event.tags.iter().map(|tag| tag.clone().to_vec()).collect::<Vec<_>>());
    let sig = event.sig.serialize().to_vec();
    let row = client
        .query_one(
            "SELECT insert_event($1, $2, $3, $4, $5, $6, $7, $8)",
            &[&id, &pubkey, &created_at, &kind, &tags, &content, &sig, &RELAY],
        )
        .await?;
    Ok(row.get(0))
}

async fn verify_offers(kit: &mut Kit) {
    let offers = Offers {
        pools: kit.pools.clone(),
        leases: Leases::new(kit.pools.write.clone()),
        intake: kit.intake(),
    };
    offers.cycle(&CancellationToken::new()).await.unwrap();
}

#[tokio::test]
async fn an_offered_event_is_stored_only_after_it_is_verified() {
    let mut kit = Kit::new().await;
    let writer = connect(&kit.database.shared_role_url(SharedRole::Writer)).await.unwrap();
    let owner = kit.database.owner().await;
    let keys = Keys::generate();
    let (good, forged) = (note(&keys, 1_700_000_000, "true"), note(&keys, 1_700_000_001, "true"));
    assert!(offer(&writer, &good, "true").await.unwrap());
    assert!(offer(&writer, &forged, "changed on the way").await.unwrap());
    assert_eq!(
        number(&owner, "SELECT count(*) FROM events").await,
        0,
        "nothing is shown before it is verified"
    );
    verify_offers(&mut kit).await;
    assert_eq!(texts(&owner, "SELECT encode(id, 'hex') FROM events").await, [good.id.to_hex()]);
    assert_eq!(texts(&owner, "SELECT relay_url FROM events_relays").await, [RELAY]);
    assert_eq!(number(&owner, "SELECT count(*) FROM event_offers").await, 0);
    // The forged event does not keep the true one out.
    assert!(offer(&writer, &forged, "true").await.unwrap());
    verify_offers(&mut kit).await;
    assert_eq!(number(&owner, "SELECT count(*) FROM events").await, 2);
    assert!(!offer(&writer, &good, "true").await.unwrap(), "the event is stored already");
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

/// An event that cannot be stored, for another reason than a refusal, is not lost and does not keep other
/// events out.
#[tokio::test]
async fn an_offer_that_fails_alone_stays_and_is_tried_again() {
    let mut kit = Kit::new().await;
    let writer = connect(&kit.database.shared_role_url(SharedRole::Writer)).await.unwrap();
    let (owner, superuser) = (kit.database.owner().await, kit.superuser().await);
    let fail = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'planted' USING ERRCODE = '22023'; END $$;
                CREATE TRIGGER fail BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.content = 'planted') EXECUTE FUNCTION fail()";
    superuser.batch_execute(fail).await.unwrap();
    let keys = Keys::generate();
    for (second, content) in [(0, "one"), (1, "planted"), (2, "two")] {
        assert!(offer(&writer, &note(&keys, 1_700_000_000 + second, content), content).await.unwrap());
    }
    verify_offers(&mut kit).await;
    assert_eq!(texts(&owner, "SELECT content FROM events ORDER BY 1").await, ["one", "two"]);
    let waits = "SELECT event ->> 'content' FROM event_offers
                 WHERE failures = 1 AND number > 3 AND again_at BETWEEN now() AND now() + interval '1 minute'";
    assert_eq!(texts(&owner, waits).await, ["planted"]);
    superuser.batch_execute("DROP TRIGGER fail ON events").await.unwrap();
    verify_offers(&mut kit).await;
    assert_eq!(number(&owner, "SELECT count(*) FROM events").await, 2, "the next attempt is not due");
    superuser.batch_execute("UPDATE event_offers SET again_at = now()").await.unwrap();
    verify_offers(&mut kit).await;
    assert_eq!(number(&owner, "SELECT count(*) FROM events").await, 3);
    assert_eq!(number(&owner, "SELECT count(*) FROM event_offers").await, 0);
}

#[tokio::test]
async fn bad_arguments_are_refused_by_name_and_offers_are_bounded() {
    let kit = Kit::new().await;
    let writer = connect(&kit.database.shared_role_url(SharedRole::Writer)).await.unwrap();
    let call = |arguments: &str| format!("SELECT insert_event({arguments})");
    let ok = [
        r"sha256('i')",
        r"sha256('p')",
        "1",
        "1",
        "'[]'",
        "'c'",
        r"sha256('s') || sha256('t')",
        "'wss://relay.example.com'",
    ];
    for (place, bad, said) in [
        (0, r"'\x00'", "id: 1 bytes, expected 32"),
        (1, "NULL", "pubkey:  bytes, expected 32"),
        (2, "-1", "created_at: -1, expected unix seconds from 0"),
        (3, "65536", "kind: 65536, expected 0 to 65535"),
        (4, "'{}'", "tags: object, expected an array"),
        (5, "repeat('x', 4194304)", "content and tags: 4194306 bytes, at most 4194304"),
        (6, r"'\x00'", "sig: 1 bytes, expected 64"),
        (7, "'WSS://relay.example.com/'", "url: 'WSS://relay.example.com/' is not a canonical relay address"),
    ] {
        let mut arguments = ok;
        arguments[place] = bad;
        let error = writer.batch_execute(&call(&arguments.join(", "))).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!((error.code(), error.message()), (&SqlState::INVALID_PARAMETER_VALUE, said));
    }
    let fill =
        "INSERT INTO event_offers (relay, bytes, event) SELECT 1, 2, '{}' FROM generate_series(0, 100000)";
    kit.superuser().await.batch_execute(fill).await.unwrap();
    let error = writer.batch_execute(&call(&ok.join(", "))).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::CONFIGURATION_LIMIT_EXCEEDED));
}

#[tokio::test]
async fn a_snapshot_makes_its_relay_known() {
    let kit = Kit::new().await;
    let writer = connect(&kit.database.shared_role_url(SharedRole::Writer)).await.unwrap();
    let insert =
        "SELECT insert_relay_metadata('wss://new.example.com', 1700000000, '{\"name\": \"New\"}', NULL)";
    writer.batch_execute(insert).await.unwrap();
    let future = "SELECT insert_relay_metadata('wss://new.example.com', 4000000000000000000, NULL, '{\"readable\": false}')";
    assert_eq!(
        writer.batch_execute(future).await.unwrap_err().code(),
        Some(&SqlState::INVALID_PARAMETER_VALUE)
    );
    let owner = kit.database.owner().await;
    assert_eq!(texts(&owner, "SELECT url FROM relays").await, ["wss://new.example.com"]);
    assert_eq!(texts(&owner, "SELECT relay_url FROM relay_metadata_latest").await, ["wss://new.example.com"]);
}

#[tokio::test]
async fn a_snapshot_of_another_program_keeps_no_relay_that_the_operator_named_from_the_crawl() {
    let mut kit = Kit::new().await;
    kit.relays(&["named"]).await;
    let writer = connect(&kit.database.shared_role_url(SharedRole::Writer)).await.unwrap();
    let (named, other) = ("wss://named.example.com", "wss://other.example.com");
    for url in [named, other] {
        let unreadable =
            format!("SELECT insert_relay_metadata('{url}', 1700000000, NULL, '{{\"readable\": false}}')");
        writer.batch_execute(&unreadable).await.unwrap();
    }
    let owner = kit.database.owner().await;
    let unreadable = "SELECT count(*) FROM relay_metadata_latest WHERE NOT readable";
    assert_eq!(number(&owner, unreadable).await, 2);
    let crawled = async |only: &[String]| -> Vec<String> {
        let relays = relays_to_crawl(&kit.pools.session, 1_700_000_000, only, 0).await.unwrap();
        relays.into_iter().map(|relay| relay.url).collect()
    };
    assert_eq!(crawled(&[]).await, [named]);
    // Named by the operator's settings.
    assert_eq!(crawled(&[other.to_owned()]).await, [named, other]);
}

#[tokio::test]
async fn sql_accepts_a_relay_address_only_in_its_canonical_spelling() {
    let kit = Kit::new().await;
    let owner = kit.database.owner().await;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/seed_relays.txt");
    let seeds = Seeds::read(std::fs::read(file).unwrap().as_slice()).unwrap();
    let mut texts: Vec<String> = seeds.relays.iter().map(ToString::to_string).collect();
    let known = texts.len();
    // Valid addresses with one change each, and texts that a parser may read as something else.
    for seed in &seeds.relays[..200] {
        let seed = seed.as_str();
        texts.extend([
            seed.to_uppercase(),
            format!("{seed}/"),
            format!("{seed}#x"),
            format!("{seed}?"),
            format!(" {seed}"),
            format!("{seed}:443"),
            format!("{seed}:80"),
            format!("{seed}:0"),
            format!("{seed}:65536"),
            format!("{seed}:099"),
            format!("{seed}/a/../b"),
            format!("{seed}/%2e%2E/b"),
            format!("{seed}/a b"),
            format!("{seed}/a\\b"),
            format!("{seed}//"),
            format!("{seed}."),
            seed.replace("://", "://user@"),
            seed.replace("wss", "https"),
            format!("{seed}/ü"),
            format!("{seed}\n"),
        ]);
    }
    texts.extend(
        [
            "ws://1.2.3",
            "ws://0x7f.1",
            "ws://127.0.0.1",
            "ws://01.2.3.4",
            "ws://1.2.3.4.",
            "ws://256.1.1.1",
            "ws://[::1]",
            "ws://[::0001]",
            "ws://[::ffff:1.2.3.4]",
            "ws://[::ffff:102:304]",
            "ws://[1::2:0:0:0:0:3]",
            "ws://[fe80::1%25eth0]",
            "ws://[::1",
            "ws://a..b",
            "ws://.a",
            "ws://xn--a",
            "wss://xn--mnchen-3ya.de",
            "ws://onion",
            "ws://short.onion",
            "ws://a_b.c",
            "ws://-a.c",
            "",
            "ws://",
            "wss:///x",
            "ws://a?b",
            "ws://a/?b",
            "ws://a/b?c=d&e",
            "ws://a//b",
        ]
        .map(str::to_owned),
    );
    let accepted = owner
        .query("SELECT u, quipu_is_canonical_relay_url(u) FROM unnest($1::text[]) WITH ORDINALITY AS x (u, n) ORDER BY n", &[&texts])
        .await
        .unwrap();
    let mut taken = 0;
    for (place, row) in accepted.iter().enumerate() {
        let (text, is_accepted): (&str, bool) = (row.get(0), row.get(1));
        if is_accepted {
            assert_eq!(RelayUrl::parse(text).unwrap().as_str(), text);
            taken += usize::from(place < known);
        }
    }
    assert!(taken * 100 > known * 98, "{taken} of {known} seeds are accepted");
}

/// PL/pgSQL reads an expression when a session first gets to it, with the session's settings: a backslash in
/// a text then means what the caller chose.
#[tokio::test]
async fn a_setting_of_the_caller_changes_no_procedure() {
    let kit = Kit::new().await;
    let writer = connect(&kit.database.shared_role_url(SharedRole::Writer)).await.unwrap();
    // The first call does not get to the last expression.
    let prepare = "SELECT quipu_is_canonical_relay_url('wss://xn--a'); SET standard_conforming_strings = off; SET escape_string_warning = off";
    writer.batch_execute(prepare).await.unwrap();
    let url = format!("wss://z{}ad.onion", "a".repeat(54));
    let told = writer.batch_execute(&format!("SELECT insert_relay('{url}')")).await.unwrap_err();
    assert_eq!(told.code(), Some(&SqlState::INVALID_PARAMETER_VALUE));
    let owner = kit.database.owner().await;
    let unclear = "SELECT oid::regprocedure::text FROM pg_proc
                   WHERE pronamespace = 'public'::regnamespace AND strpos(prosrc, chr(92)) > 0 ORDER BY 1";
    assert_eq!(texts(&owner, unclear).await, Vec::<String>::new(), "write [.] or chr(92)");
    let unset = "SELECT oid::regprocedure::text FROM pg_proc p
                 WHERE pronamespace = 'public'::regnamespace AND prosecdef AND has_function_privilege('quipu_writer', oid, 'EXECUTE')
                   AND NOT coalesce('standard_conforming_strings=on' = ANY (proconfig), false) ORDER BY 1";
    assert_eq!(texts(&owner, unset).await, Vec::<String>::new());
}

#[tokio::test]
async fn analysts_call_no_procedure_and_programs_call_five() {
    let kit = Kit::new().await;
    let callable = "SELECT p.proname::text FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
                    AND (p.provolatile = 'v' OR p.prosecdef OR p.proname LIKE 'insert%' OR p.proname LIKE 'delete%')
                    AND p.prorettype <> 'trigger'::regtype AND has_function_privilege(p.oid, 'EXECUTE') ORDER BY 1";
    for (person, expected) in [
        (SharedRole::Reader, &[][..]),
        (SharedRole::MessagesReader, &[]),
        (
            SharedRole::Writer,
            &[
                "delete_orphan_events",
                "insert_event",
                "insert_relay",
                "insert_relay_metadata",
                "quipu_submit_job",
            ],
        ),
    ] {
        let client = connect(&kit.database.shared_role_url(person)).await.unwrap();
        assert_eq!(texts(&client, callable).await, expected, "{person:?}");
        let readable = "SELECT relname::text FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'partitions'::regnamespace) AND relkind IN ('r', 'p', 'v')
                        AND has_table_privilege(oid, 'SELECT')";
        assert_eq!(texts(&client, readable).await.is_empty(), person == SharedRole::Writer);
        if person == SharedRole::Writer {
            assert_eq!(number(&client, "SELECT delete_orphan_events('2024-01-01')").await, 0);
        }
    }
    let owner = kit.database.owner().await;
    let bare = "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
                AND obj_description(p.oid, 'pg_proc') IS NULL ORDER BY 1";
    assert_eq!(texts(&owner, bare).await, Vec::<String>::new(), "functions without a comment");
}

/// With an old snapshot, `insert_relay` would leave a URL in both `relays` and `candidates`.
#[tokio::test]
async fn procedures_of_programs_refuse_transactions_with_an_old_snapshot() {
    let kit = Kit::new().await;
    let writer = connect(&kit.database.shared_role_url(SharedRole::Writer)).await.unwrap();
    let event = "insert_event(sha256('i'), sha256('p'), 1, 1, '[]', 'c', sha256('s') || sha256('t'), 'wss://relay.example.com')";
    let metadata = "insert_relay_metadata('wss://relay.example.com', 1700000000, NULL, NULL)";
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for call in ["insert_relay('wss://relay.example.com')", event, metadata] {
            let statements = format!("BEGIN ISOLATION LEVEL {level}; SELECT {call}");
            let told = writer.batch_execute(&statements).await.unwrap_err();
            let told = told.as_db_error().unwrap();
            assert_eq!(told.code(), &SqlState::INVALID_TRANSACTION_STATE, "{call}");
            assert!(told.message().starts_with("transaction_isolation: "), "{}", told.message());
            writer.batch_execute("ROLLBACK").await.unwrap();
        }
    }
    assert_eq!(number(&kit.database.owner().await, "SELECT count(*) FROM relays").await, 0);
}

#[tokio::test]
async fn a_relay_is_no_candidate_and_is_not_tried_as_one() {
    let mut kit = Kit::new().await;
    kit.relays(&["one"]).await;
    let superuser = kit.superuser().await;
    let both = "INSERT INTO candidates (url, network, found_at, source, domain)
                SELECT url, network, now(), 'event', 'example.com' FROM relays";
    superuser.batch_execute(both).await.unwrap();
    assert_eq!(read::due_urls(&kit.pools.session, "clearnet", 10).await.unwrap(), Vec::<String>::new());
    let urls = ["wss://one.example.com".to_owned()];
    assert!(read::due_candidates(&kit.pools.session, &urls).await.unwrap().is_empty());
    // A try that finds it valid adds it once more, which ends its time as a candidate.
    assert_eq!(kit.relays(&["one"]).await, [Relay(1)]);
    assert_eq!(number(&superuser, "SELECT count(*) FROM candidates").await, 0);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

/// The numbers of relays have 31 bits. A sequence would lose one to each transaction that rolls back.
#[tokio::test]
async fn relays_that_are_rolled_back_use_up_no_numbers() {
    let kit = Kit::new().await;
    let writer = connect(&kit.database.shared_role_url(SharedRole::Writer)).await.unwrap();
    for _ in 0..10 {
        let add = "BEGIN; SELECT insert_relay('wss://relay.example.com'); ROLLBACK";
        writer.batch_execute(add).await.unwrap();
    }
    for (name, expected) in [("one", 1), ("two", 2), ("one", 1)] {
        let add = format!("SELECT insert_relay('wss://{name}.example.com')");
        let numbers: Vec<i32> = writer.query_one(&add, &[]).await.unwrap().get(0);
        assert_eq!(numbers, [expected]);
    }
}
