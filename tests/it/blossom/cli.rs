//! `quipu blobs` as a user types it, against a running instance.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::client_kit::{User, content, eventually, fetch, sha256};
use super::server_kit::{Character, Server};
use crate::support::instance::Instance;

/// A file with the key of a user.
fn key_file(instance: &Instance, user: &User) -> String {
    let path = instance.folder().join("key");
    fs::write(&path, format!("{}\n", user.keys.secret_key().to_secret_hex())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scripts_of_the_original_are_commands() {
    let instance = Instance::start(&[]);
    let user = User::new(7);
    let key = key_file(&instance, &user);
    let address = instance.ready["services"]["blossom"].as_str().unwrap().to_owned();
    let (one, two) = (content(1, 100_000), b"%PDF-1.7 a document".to_vec());
    let (hash, other) = (sha256(&one), sha256(&two));
    for (name, blob) in [("one", &one), ("two.pdf", &two)] {
        fs::write(instance.folder().join(name), blob).unwrap();
    }
    let run = |arguments: &[&str]| instance.run(&[&["blobs"], arguments, &["--key-file", &key]].concat());

    let uploaded = run(&["upload", "one", "two.pdf", "--json"]).ok().json_lines();
    assert_eq!((uploaded[0]["sha256"].as_str(), uploaded[0]["size"].as_u64()), (Some(&*hash), Some(100_000)));
    assert_eq!(uploaded[1]["type"], "application/pdf");
    let again = run(&["upload", "one"]).ok().stdout;
    assert!(again.ends_with("  there\n") && again.contains(&hash), "{again}");
    let got = fetch("GET", &format!("http://{address}/{hash}"), &[], b"").await;
    assert!(got.body == one);

    let listed = run(&["list", "--json"]).ok().json_lines();
    let mut hashes: Vec<&str> = listed.iter().map(|blob| blob["sha256"].as_str().unwrap()).collect();
    hashes.sort_unstable();
    let mut expected = [hash.as_str(), other.as_str()];
    expected.sort_unstable();
    assert_eq!(hashes, expected);
    let table = instance.run(&["blobs", "list", &user.pubkey()]).ok().stdout;
    assert!(table.contains("application/pdf") && table.lines().count() == 2, "{table}");
    assert_eq!(run(&["list", "--limit", "1", "--json"]).ok().json_lines().len(), 1);

    // A blob that is here already needs no fetch.
    let mirrored = run(&["mirror", &format!("http://{address}/{hash}"), "--json"]).ok().json_lines();
    assert_eq!(mirrored[0]["sha256"], hash.as_str());
    let refused = run(&["mirror", "http://127.0.0.1:9/cat.png"]);
    assert!(!refused.status.success() && refused.stderr.contains("--hash"), "{refused:?}");

    let header = run(&["auth-header", "--verb", "delete", "--hash", &other]).ok().stdout;
    let value = header.trim().strip_prefix("Authorization: ").expect("a header").to_owned();
    let deleted =
        fetch("DELETE", &format!("http://{address}/{other}"), &[("authorization", &value)], b"").await;
    assert!(matches!(deleted.status, 200 | 204), "{:?}", deleted.refusal());
    let refused = run(&["auth-header", "--verb", "delete"]).refusal();
    assert!(refused.contains("--hash or --file"), "{refused}");
    let refused = run(&["auth-header", "--verb", "burn"]).stderr;
    assert!(refused.contains("get, upload, list, delete, media"), "{refused}");
    let without_key = instance.run(&["blobs", "upload", "one"]);
    assert!(
        !without_key.status.success() && without_key.stderr.contains("QUIPU_BLOSSOM_KEY"),
        "{without_key:?}"
    );
    fs::write(&key, "no key").unwrap();
    let wrong = run(&["list"]).refusal();
    assert!(wrong.contains("64 hex digits or nsec1") && !wrong.contains("no key\""), "{wrong}");
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_sees_proves_and_repairs_copies() {
    let (first, second) = (Server::start(Character::Good).await, Server::start(Character::Good).await);
    let upstreams = json!([{ "url": first.url() }, { "url": second.url() }]);
    let upstreams = format!("services.blossom.upstreams={upstreams}");
    // The commands do what the service would do, so the service keeps one copy alone.
    let settings = ["--set", &upstreams, "--set", "services.blossom.replicas_target=1"];
    let instance = Instance::start(&settings);
    let address = instance.ready["services"]["blossom"].as_str().unwrap().parse().unwrap();
    let blob = content(5, 50_000);
    let hash = sha256(&blob);
    let answer = User::new(1).upload(address, &blob, "text/plain").await;
    assert_eq!(answer.status, 201, "{:?}", answer.refusal());
    let run = |arguments: &[&str]| instance.run(&[&["blobs"], arguments, &settings].concat());
    let place = || run(&["where", &hash, "--json"]).ok().json_lines().remove(0);
    let read_back = async |copies: usize| {
        eventually(&format!("copies that are read back: {copies}"), async || {
            let place = tokio::task::block_in_place(place);
            let states = place["replicas"].as_array().unwrap();
            states.len() == copies && states.iter().all(|replica| replica["state"] == "readable")
        })
        .await;
    };
    read_back(1).await;
    assert!(first.has(&hash) && !second.has(&hash), "one copy is enough for this setting");
    let made = run(&["equalize", "--json"]).ok().json_lines();
    assert_eq!(made[0], json!({ "sha256": hash, "copied": [second.url()], "failed": [] }));
    read_back(2).await;
    let shown = run(&["where", &hash]).ok().stdout;
    assert!(shown.contains(&first.url()) && shown.contains("uploaded"), "{shown}");
    assert!(run(&["where", &sha256(b"unknown")]).refusal().contains("is not known here"));

    let status = run(&["status", "--json"]).ok().json_lines().remove(0);
    assert_eq!((&status["kept"], &status["under_replicated"]), (&json!(1), &json!(0)), "{status}");
    assert_eq!(status["upstreams"][first.url()]["readable"], 1);
    let table = run(&["status"]).ok().stdout;
    assert!(table.contains(&second.url()) && table.contains("blobs kept"), "{table}");

    let proven = run(&["verify", "--full", "--json"]).ok().json_lines();
    assert_eq!(proven, [json!({ "proven": 2, "lost": 0, "unknown": 0 })]);
    second.wipe();
    let lost = run(&["verify", &hash, "--upstream", &second.url(), "--json"]);
    assert_eq!(lost.status.code(), Some(1), "{lost:?}");
    let lost = lost.json_lines();
    assert_eq!((&lost[0]["upstream"], &lost[0]["state"]), (&json!(second.url()), &json!("lost")));

    let nothing = run(&["repair", "--json"]).ok().json_lines();
    assert_eq!(nothing.last().unwrap()["copied"], 0, "one copy is enough for this setting");
    let made = run(&["equalize", "--upstream", &second.url(), "--json"]).ok().json_lines();
    assert_eq!(made[0], json!({ "sha256": hash, "copied": [second.url()], "failed": [] }));
    assert_eq!(made.last().unwrap(), &json!({ "copied": 1, "failed": 0, "unavailable": 0 }));
    assert!(second.has(&hash));
    assert_eq!(run(&["equalize", "--json"]).ok().json_lines().last().unwrap()["copied"], 0);
    assert!(run(&["verify", "--upstream", "http://127.0.0.1:9"]).refusal().contains("no upstream"));
    instance.stop();
}
