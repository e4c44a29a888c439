//! `quipu messages` as a user types it, against a running instance that does not trust claimed identities.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::kit::wayfarer;
use crate::support::instance::{Instance, Ran, await_some, quipu, run, signal, wait};

fn instance() -> (Instance, String) {
    let instance = Instance::start(&[
        "--set",
        "services.messages.compat_unauthenticated=false",
        "--set",
        "services.messages.max_ttl_s=7200",
    ]);
    let address = instance.ready["services"]["messages"].as_str().unwrap();
    let url = format!("ws://{address}/ws");
    (instance, url)
}

/// Runs `quipu messages …` with a token in the environment.
fn run_with_token(instance: &Instance, token: &str, arguments: &[&str]) -> Ran {
    let mut command = instance.command(&["messages"]);
    command.args(arguments).env("QUIPU_MESSAGES_TOKEN", token);
    run(&mut command, instance.folder())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_created_listed_used_and_revoked() {
    let (instance, url) = instance();
    let (id, other) = (wayfarer(1), wayfarer(2));
    let create = ["messages", "token", "create", "--wayfarer", &id];
    let created = instance.run(&[&create[..], &["--label", "the laptop's"]].concat()).ok();
    let token = created.stdout.trim_end();
    assert!(token.starts_with("qm_") && token.len() == 46, "{token}");
    assert!(created.stderr.contains(&id) && !created.stderr.contains(token), "{}", created.stderr);
    let bound =
        instance.run(&[&create[..], &["--device", "phone", "--ttl-seconds", "3600", "--json"]].concat()).ok();
    let bound = bound.json_lines().remove(0);
    let bound_token = bound["token"].as_str().unwrap();
    instance.run(&["messages", "token", "create", "--wayfarer", &other]).ok();
    let listed = instance.run(&["messages", "token", "list", "--wayfarer", &id, "--json"]).ok().json_lines();
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[0]["label"], &listed[0]["device"]), (&"the laptop's".into(), &Value::Null));
    assert_eq!((&listed[1]["device"], &listed[1]["sha256"]), (&"phone".into(), &bound["sha256"]));
    let table = instance.run(&["messages", "token", "list"]).ok().stdout;
    assert!(table.contains("the laptop's") && table.contains(&other) && !table.contains("qm_"), "{table}");

    let send = ["send", "--url", &url, "--as", &id, "--to", &other, "hi"];
    assert!(run_with_token(&instance, token, &send).ok().stdout.contains("stored until"));
    let refusal = run_with_token(&instance, bound_token, &send).refusal();
    assert!(refusal.contains("another device_id"), "{refusal}");
    run_with_token(&instance, bound_token, &[&send[..], &["--device", "phone"]].concat()).ok();
    let refusal = run_with_token(&instance, "qm_wrong", &send).refusal();
    assert!(refusal.contains("token"), "{refusal}");
    let refusal = instance.run(&[&["messages"], &send[..]].concat()).refusal();
    assert!(refusal.contains("token"), "{refusal}");

    let prefix = listed[0]["sha256"].as_str().unwrap().get(..12).unwrap();
    assert!(instance.run(&["messages", "token", "revoke", prefix]).ok().stdout.contains("revoked"));
    assert!(instance.run(&["messages", "token", "revoke", bound_token]).ok().stdout.contains("revoked"));
    for revoked in [token, bound_token] {
        run_with_token(&instance, revoked, &send).refusal();
        assert!(instance.run(&["messages", "token", "revoke", revoked]).refusal().contains("no such token"));
    }
    assert_eq!(instance.run(&["messages", "token", "list", "--json"]).ok().json_lines().len(), 1);
    let log = instance.log();
    assert!(!log.contains(token) && !log.contains(bound_token), "{log}");
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn send_pull_and_tail_with_a_key_and_a_token() {
    let (instance, url) = instance();
    let key = instance.folder().join("key");
    let key = key.to_str().unwrap();
    let created = instance.run(&["messages", "key", "create", key]).ok();
    let id = created.stdout.split_whitespace().find(|word| word.len() == 64).unwrap().to_owned();
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    instance.run(&["messages", "key", "create", key]).refusal();
    let recipient = wayfarer(2);
    let token = instance.run(&["messages", "token", "create", "--wayfarer", &recipient]).ok().stdout;
    let token = token.trim_end();

    let send = ["messages", "send", "--url", &url, "--key", key, "--to", &recipient, "--json"];
    let first =
        instance.run(&[&send[..], &["--client-msg-id", "x", "grüße"]].concat()).ok().json_lines().remove(0);
    let again =
        instance.run(&[&send[..], &["--client-msg-id", "x", "grüße"]].concat()).ok().json_lines().remove(0);
    assert_eq!(first, again);
    let refusal = instance.run(&[&send[..], &["--client-msg-id", "x", "other"]].concat()).refusal();
    assert!(refusal.contains("client_msg_id"), "{refusal}");
    let input = instance.folder().join("input");
    fs::write(&input, b"two\nlines").unwrap();
    let mut command = instance.command(&send);
    command.args(["--ttl-seconds", "60", "-"]).stdin(File::open(&input).unwrap());
    let second = run(&mut command, instance.folder()).ok().json_lines().remove(0);
    let span = second["expires_at"].as_i64().unwrap() - second["received_at"].as_i64().unwrap();
    assert_eq!(span, 60);

    let pull = ["pull", "--url", &url, "--as", &recipient];
    let lines = run_with_token(&instance, token, &pull).ok().stdout;
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains(&id) && lines[0].ends_with("  grüße"), "{lines:?}");
    assert!(lines[1].ends_with("  base64:dHdvCmxpbmVz"), "{lines:?}");
    let pulled =
        run_with_token(&instance, token, &[&pull[..], &["--limit", "1", "--ack", "--json"]].concat()).ok();
    let pulled = pulled.json_lines();
    assert_eq!((pulled.len(), &pulled[0]["msg_id"], &pulled[0]["from"]), (1, &first["msg_id"], &json!(id)));

    // Waiting messages first, then new ones, until Ctrl-C; the other device has acknowledged nothing.
    let shown = instance.folder().join("tail");
    let mut tail = instance.command(&["messages", "tail", "--url", &url, "--as", &recipient, "--ack"]);
    tail.env("QUIPU_MESSAGES_TOKEN", token).stdin(Stdio::null());
    let mut tail = tail.stdout(File::create(&shown).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    let lines = || fs::read_to_string(&shown).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    await_some("what waits is shown", || (lines().len() == 1).then_some(()));
    instance.run(&[&send[..], &["live"]].concat()).ok();
    await_some("what comes is shown", || (lines().len() == 2).then_some(()));
    assert!(lines()[1].ends_with("  live"), "{:?}", lines());
    let pull_all = [&pull[..], &["--json"]].concat();
    await_some("both are acknowledged", || {
        run_with_token(&instance, token, &pull_all).ok().stdout.is_empty().then_some(())
    });
    signal(tail.id(), Signal::SIGINT);
    assert_eq!(wait(&mut tail).unwrap().code(), Some(0));
    let other_device =
        run_with_token(&instance, token, &[&pull_all[..], &["--device", "tablet"]].concat()).ok();
    assert_eq!(other_device.json_lines().len(), 3);
    instance.stop();
}

/// The flag is in aethos-relay's quick start.
#[test]
fn store_path_is_accepted_with_a_note_that_messages_are_in_postgresql() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = quipu(folder.path());
    // The command ends at the unknown key, before anything starts.
    command.args(["run", "messages", "--store-path", "./relay.db", "--set", "services.messages.unknown=1"]);
    let refusal = run(&mut command, folder.path()).refusal();
    assert!(
        refusal.contains("--store-path ./relay.db is ignored: messages are kept in PostgreSQL"),
        "{refusal}"
    );
    assert!(refusal.contains("services.messages.unknown"), "{refusal}");
    let mut other = quipu(folder.path());
    other.args(["run", "console", "--store-path", "./relay.db"]);
    assert!(run(&mut other, folder.path()).refusal().contains("quipu run messages"));
}

#[test]
fn check_config_warns_of_a_relay_id_that_is_no_url_beyond_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let checked = |settings: &[&str]| {
        let mut command = quipu(folder.path());
        command.arg("check-config");
        for setting in settings {
            command.args(["--set", setting]);
        }
        run(&mut command, folder.path()).ok().stderr
    };
    let address = "services.messages.ws_address=0.0.0.0:4705";
    assert!(checked(&[address]).contains("services.messages.relay_id: `quipu` is no URL"));
    for silent in [&[][..], &[address, "services.messages.relay_id=wss://messages.example/ws"]] {
        assert!(!checked(silent).contains("relay_id"), "{silent:?}");
    }
}
