//! The guardian: blobs that archived events of a followed key refer to are found, kept, and listed if they are gone.

use nostr_sdk::{Event, EventBuilder, JsonUtil as _, Kind, Tag, Timestamp};
use serde_json::{Value, json};

use super::client_kit::{User, content, eventually, fetch, sha256};
use super::server_kit::{Character, Server};
use crate::archive::kit::import;
use crate::support::instance::Instance;

fn event(user: &User, kind: u16, tags: &[&[&str]], content: &str, at: u64) -> Event {
    let tags = tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap());
    EventBuilder::new(Kind::from(kind), content)
        .tags(tags)
        .custom_created_at(Timestamp::from_secs(at))
        .sign_with_keys(&user.keys)
        .unwrap()
}

fn lines(events: &[Event]) -> Vec<u8> {
    events.iter().flat_map(|event| format!("{}\n", event.as_json()).into_bytes()).collect()
}

/// An instance with the built-in store that may dial these servers, although they have private addresses.
fn instance(servers: &[&Server]) -> Instance {
    let origins: Vec<String> = servers.iter().map(|server| server.url()).collect();
    let origins = format!("services.blossom.private_origins={}", json!(origins));
    Instance::start(&["--set", &origins])
}

/// What `quipu blobs where` says; `null` about an unknown blob.
fn place(instance: &Instance, sha256: &str) -> Value {
    let ran = instance.run(&["blobs", "where", sha256, "--json"]);
    if ran.status.success() { ran.json_lines().remove(0) } else { Value::Null }
}

/// Waits until the blob is readable here and owned by this key.
async fn adopted(instance: &Instance, sha256: &str, owner: &User) -> Value {
    eventually(&format!("{sha256} is adopted"), async || {
        let found = tokio::task::block_in_place(|| place(instance, sha256));
        found["owners"] == json!([owner.pubkey()]) && found["replicas"][0]["state"] == "readable"
    })
    .await;
    place(instance, sha256)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_followed_key_refers_to_is_kept_and_what_is_gone_is_listed() {
    let (files, home) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let liar = Server::start(Character::Good).await;
    let (alice, bob) = (User::new(1), User::new(2));
    let blobs: Vec<Vec<u8>> = (0..8).map(|seed| content(seed, 40_000 + usize::from(seed))).collect();
    let hash: Vec<String> = blobs.iter().map(|blob| sha256(blob)).collect();
    // By its URL in a note, by `imeta` at a place without its hash, by `x` and the author's server, by a `blossom:` URI.
    files.keep(&blobs[0], "text/plain");
    files.keep(&blobs[1], "image/png");
    home.keep(&blobs[2], "text/plain");
    files.keep(&blobs[3], "text/plain");
    // Other bytes under the hash, nothing anywhere, another author's, and one that comes later.
    liar.alter(&hash[4], &blobs[0], "text/plain");
    files.keep(&blobs[6], "text/plain");
    files.keep(&blobs[7], "text/plain");
    let at = |server: &Server, hash: &str| format!("{}/{hash}", server.url());
    let instance = instance(&[&files, &home, &liar]);

    let note = format!("Look at {} and {}.", at(&files, &hash[0]), at(&liar, &hash[4]));
    let imeta = [format!("url {}", at(&files, &hash[1])), format!("x {}", hash[1])];
    let uri = format!("blossom:{}.txt?xs={}", hash[3], files.url());
    let gone = at(&files, &hash[5]);
    let events = [
        event(&alice, 1, &[], &note, 1_700_000_000),
        event(&alice, 20, &[&["imeta", &imeta[0], &imeta[1]]], "", 1_700_000_001),
        event(&alice, 1063, &[&["x", &hash[2]], &["m", "text/plain"]], "", 1_700_000_002),
        event(&alice, 30023, &[&["d", "a"]], &format!("![]({uri})"), 1_700_000_003),
        event(&alice, 1, &[&["imeta", &format!("url {gone}"), &format!("x {}", hash[5])]], "", 1_700_000_004),
        event(&alice, 10063, &[&["server", &home.url()]], "", 1_700_000_005),
        event(&bob, 1, &[], &at(&files, &hash[6]), 1_700_000_006),
    ];
    import(&instance, &lines(&events), &[]);
    let listed = instance.run(&["blobs", "adopt"]).ok().stdout;
    assert!(listed.contains("No key is followed"), "{listed}");
    let followed = instance.run(&["blobs", "adopt", "--pubkey", &alice.pubkey(), "--json"]).ok().json_lines();
    assert_eq!(followed, [json!({ "pubkey": alice.pubkey(), "followed": true })]);
    for hash in &hash[..4] {
        let found = adopted(&instance, hash, &alice).await;
        let adopted = |entry: &&Value| entry["kind"] == "adopted" && entry["actor"] == "guardian";
        let history = found["history"].as_array().unwrap();
        assert_eq!(history.iter().filter(adopted).count(), 1, "{found}");
    }
    let found = place(&instance, &hash[1]);
    assert_eq!((&found["type"], &found["size"]), (&json!("image/png"), &json!(40_001)));

    // It is served from here from now on.
    let address = instance.ready["services"]["blossom"].as_str().unwrap();
    files.wipe();
    let got = fetch("GET", &format!("http://{address}/{}", hash[0]), &[], b"").await;
    assert_eq!((got.status, got.body == blobs[0]), (200, true), "{:?}", got.refusal());

    let missed = async || {
        let listed = tokio::task::block_in_place(|| instance.run(&["blobs", "adopt", "--json"]).ok());
        let mut missed: Vec<(String, String)> = listed
            .json_lines()
            .iter()
            .filter(|line| line["missed"].is_string())
            .map(|line| (line["missed"].as_str().unwrap().into(), line["why"].as_str().unwrap().into()))
            .collect();
        missed.sort();
        missed
    };
    eventually("two blobs are missed", async || missed().await.len() == 2).await;
    let mut expected = [hash[4].clone(), hash[5].clone()];
    expected.sort();
    let missed = missed().await;
    assert_eq!(missed.iter().map(|(hash, _)| hash.clone()).collect::<Vec<_>>(), expected);
    let why = |hash: &str| &missed.iter().find(|(missed, _)| missed == hash).unwrap().1;
    // The last place is the author's own server.
    assert!(why(&hash[5]).contains(&home.url()), "{}", why(&hash[5]));
    assert_eq!(place(&instance, &hash[6]), Value::Null, "no key that is followed refers to it");

    // An event that comes later is found in the archive's journal.
    files.keep(&blobs[7], "text/plain");
    import(&instance, &lines(&[event(&alice, 1, &[], &at(&files, &hash[7]), 1_700_000_100)]), &[]);
    adopted(&instance, &hash[7], &alice).await;

    // A key that is followed no longer keeps what it has, and gets nothing new.
    instance.run(&["blobs", "adopt", "--pubkey", &alice.pubkey(), "--stop"]).ok();
    let listed = instance.run(&["blobs", "adopt", "--json"]).ok().json_lines();
    assert!(listed.iter().all(|line| line["followed"] != true), "{listed:?}");
    assert_eq!(place(&instance, &hash[0])["owners"], json!([alice.pubkey()]));
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_address_that_the_settings_do_not_name_is_not_dialled() {
    let files = Server::start(Character::Good).await;
    let alice = User::new(1);
    let blob = content(1, 1_000);
    let hash = files.keep(&blob, "text/plain");
    let follow = format!("services.blossom.follow_pubkeys=[\"{}\"]", alice.pubkey());
    let instance = Instance::start(&["--set", &follow]);
    let note = format!("{}/{hash}", files.url());
    import(&instance, &lines(&[event(&alice, 1, &[], &note, 1_700_000_000)]), &[]);
    eventually("the blob is missed", async || {
        tokio::task::block_in_place(|| {
            let listed = instance.run(&["blobs", "adopt", "--json"]).ok().json_lines();
            listed.iter().any(|line| {
                line["missed"] == hash.as_str()
                    && line["why"].as_str().is_some_and(|why| why.contains("private"))
            })
        })
    })
    .await;
    assert_eq!(files.seen().len(), 0, "no request was sent");
    // The command works with the settings of the service.
    let stop = ["blobs", "adopt", "--pubkey", &alice.pubkey(), "--stop", "--set", &follow];
    let refused = instance.run(&stop).refusal();
    assert!(refused.contains("follow_pubkeys"), "{refused}");
    instance.stop();
}
