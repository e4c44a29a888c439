//! Messages of the commands when they fail, and the contents of the ready file.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::kit::await_count;
use crate::support::database::{enterable_folder, free_port_block};
use crate::support::instance::{Instance, PATIENCE, quipu, run, signal, wait};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ready_file_is_private_and_names_every_door() {
    let instance = Instance::start(&[]);
    for file in [instance.ready_file(), instance.data().join("instance.json")] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(instance.ready["console"].is_string());
    for key in ["database_url", "session_database_url", "owner_database_url", "reader_database_url"] {
        let client = quipu::store::owner::connect(&instance.url(key)).await.unwrap();
        assert_eq!(client.query_typed("SELECT 1", &[]).await.unwrap().len(), 1, "{key}");
    }
    let services = instance.ready["services"].as_object().unwrap();
    let expected = [
        "blossom",
        "console",
        "finder",
        "jobs",
        "messages",
        "messages-http",
        "observer",
        "ops",
        "projector",
        "synchronizer",
        "ticker",
    ];
    assert_eq!(services.keys().collect::<Vec<_>>(), expected);
    for service in expected {
        let address: std::net::SocketAddr = services[service].as_str().unwrap().parse().unwrap();
        assert!(address.ip().is_loopback() && std::net::TcpStream::connect(address).is_ok(), "{service}");
    }
    assert!(!instance.log().contains("password"), "{}", instance.log());
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn url_prints_each_database_url_and_a_retired_relay_is_known_as_such() {
    let instance = Instance::start(&[]);
    let url = |arguments: &[&str]| instance.run(arguments).ok().stdout.trim_end().to_owned();
    assert_eq!(url(&["url"]), instance.ready["reader_database_url"]);
    for (door, key) in [
        ("write", "database_url"),
        ("session", "session_database_url"),
        ("reader", "reader_database_url"),
        ("owner", "owner_database_url"),
    ] {
        assert_eq!(url(&["url", door]), instance.ready[key], "{door}");
    }
    let admin = quipu::base::Secret::new(url(&["url", "admin"]));
    let client = quipu::store::owner::connect(&admin).await.unwrap();
    let rights =
        "SELECT rolsuper AND current_database() = 'quipu' FROM pg_roles WHERE rolname = current_user";
    assert!(client.query_one(rights, &[]).await.unwrap().get::<_, bool>(0));
    let ready = fs::read_to_string(instance.ready_file()).unwrap();
    assert!(!ready.contains("admin_database_url"), "other programs may read the ready file: {ready}");

    let relay = "ws://127.0.0.1:1";
    let said = instance.run(&["relays", "retire", relay, "--reason", "gone"]).refusal();
    assert!(said.contains("is not known"), "{said}");
    instance.run(&["relays", "add", relay]).ok();
    assert!(instance.run(&["relays", "retire", relay, "--reason", " "]).refusal().contains("--reason"));
    for said in ["retired\n", "retired already\n"] {
        let ran = instance.run(&["relays", "retire", relay, "--reason", "gone"]).ok();
        assert!(ran.stdout.ends_with(said), "{}", ran.stdout);
    }
    let listed = instance.run(&["relays", "list", "--json"]).ok().json_lines();
    assert!(listed[0]["retired_at"].is_string(), "{listed:?}");

    for said in ["restored\n", "was not retired\n"] {
        let ran = instance.run(&["relays", "restore", relay, "--reason", "back"]).ok();
        assert!(ran.stdout.ends_with(said), "{}", ran.stdout);
    }
    let listed = instance.run(&["relays", "list", "--json"]).ok().json_lines();
    assert!(listed[0]["retired_at"].is_null(), "{listed:?}");
    let kinds = "SELECT count(*) FROM relay_log WHERE kind IN ('retired', 'restored')";
    assert_eq!(instance.count(kinds).await, 2);
    let told = instance.run(&["relays", "show", relay]).ok().stdout;
    assert!(told.contains("restored") && told.contains("back"), "{told}");
    instance.run(&["verify"]).ok();
    instance.stop();
}

#[test]
fn a_ready_file_that_cannot_be_written_stops_everything_in_order() {
    let folder = enterable_folder();
    let mut command = quipu(folder.path());
    command.args(["up", "--set", "services.initializer.enabled=false", "--ready-file", "nowhere/ready.json"]);
    command.args(["--port-base", &free_port_block().to_string()]);
    let said = run(&mut command, folder.path()).refusal();
    assert!(said.contains("quipu stopped: task `announcement` failed") && said.contains("nowhere"), "{said}");
    assert!(!folder.path().join("data/instance.json").exists());
    assert!(!folder.path().join("data/postgres/postmaster.pid").exists(), "nothing stays behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_where_the_instance_writes_is_replaced_and_never_followed() {
    let mut instance = Instance::start(&[]);
    signal(instance.pid(), Signal::SIGTERM);
    assert_eq!(instance.ended().code(), Some(0));
    let victim = instance.folder().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let described = instance.data().join("instance.json");
    for place in [described.clone(), described.with_extension("json.draft")] {
        std::os::unix::fs::symlink(&victim, place).unwrap();
    }
    instance.go();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(fs::symlink_metadata(&described).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::symlink_metadata(&described).unwrap().is_file());
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_in_use_is_refused_and_the_one_that_uses_it_goes_on() {
    let instance = Instance::start(&[]);
    let mut second = instance.command(&["up", "--port-base", &free_port_block().to_string()]);
    let said = run(&mut second, instance.folder()).refusal();
    assert!(said.contains("another Quipu is running on") && said.contains("--data"), "{said}");
    // The refused instance does not affect the running one.
    instance.run(&["relays", "list"]).ok();
    assert_eq!(instance.count("SELECT count(*) FROM events").await, 0);
    instance.stop();
}

#[test]
fn every_taken_port_is_named_with_its_setting_and_the_remedy_before_anything_starts() {
    let folder = enterable_folder();
    let base = free_port_block();
    let up = || {
        let mut command = quipu(folder.path());
        command.args(["up", "--sample", "--port-base", &base.to_string()]);
        run(command.arg("--data").arg(folder.path().join("data")), folder.path()).refusal()
    };
    let names = [
        "console (`http.console_address`)",
        "ops (`http.ops_address`)",
        "postgres",
        "pgbouncer",
        "sample-relay",
        "messages (`services.messages.ws_address`)",
        "messages-http (`services.messages.http_address`)",
    ];
    for (place, name) in names.into_iter().enumerate() {
        let port = base + u16::try_from(place).unwrap();
        let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let said = up();
        assert!(said.contains(&format!("127.0.0.1:{port} for {name}: ")), "{said}");
        assert!(
            said.contains("stop the program that listens there") && said.contains("--port-base N"),
            "{said}"
        );
        assert_eq!(said.matches(" for ").count(), 1, "{said}");
        assert!(!folder.path().join("data").exists(), "nothing is made");
    }
    let _taken = [0, 3, 5].map(|place| TcpListener::bind(("127.0.0.1", base + place)).unwrap());
    assert_eq!(up().matches(" for ").count(), 3);
}

/// A pool would try again for 30 s and then name neither role nor address.
#[test]
fn commands_that_read_or_write_say_at_once_that_the_database_does_not_answer() {
    let folder = enterable_folder();
    for (arguments, role) in [
        (&["archive", "status"][..], "quipu_session"),
        (&["archive", "gaps"], "quipu_session"),
        (&["relays", "list"], "quipu_session"),
        (&["relays", "add", "ws://127.0.0.1:1"], "quipu"),
        (&["messages", "token", "list"], "quipu"),
        (&["export"], "quipu_session"),
    ] {
        let mut command = quipu(folder.path());
        for (variable, role) in [
            ("DATABASE_URL", "quipu"),
            ("QUIPU_SESSION_DATABASE_URL", "quipu_session"),
            ("QUIPU_OWNER_DATABASE_URL", "quipu_owner"),
        ] {
            command.env(variable, format!("postgres://{role}:x@127.0.0.1:1/quipu"));
        }
        let started = Instant::now();
        let said = run(command.args(arguments).stdin(Stdio::null()), folder.path()).refusal();
        assert!(started.elapsed() < Duration::from_secs(10), "{arguments:?}: {:?}", started.elapsed());
        let role = format!("role `{role}` in database `quipu` of 127.0.0.1:1");
        assert!(said.contains(&role) && said.contains("Connection refused"), "{arguments:?}: {said}");
    }
}

/// The relay of a sample has events that are generated, validly signed, and of no use to a real archive.
#[test]
fn a_sample_and_a_real_archive_keep_to_their_own_folders() {
    let mut sample = Instance::start(&["--sample"]);
    let end = |instance: &mut Instance| {
        signal(instance.pid(), Signal::SIGTERM);
        assert_eq!(instance.ended().code(), Some(0));
    };
    end(&mut sample);
    let refused = |instance: &Instance, arguments: &[&str]| {
        let port = free_port_block().to_string();
        let mut command = instance.command(&["up", "--port-base", &port]);
        command.args(["--set", "services.initializer.enabled=false"]).args(arguments);
        run(&mut command, instance.folder()).refusal()
    };
    let said = refused(&sample, &[]);
    assert!(said.contains("of a sample") && said.contains("--data"), "{said}");
    sample.go();
    sample.stop();

    let mut real = Instance::start(&[]);
    real.run(&["relays", "add", "wss://relay.example.com"]).ok();
    end(&mut real);
    let said = refused(&real, &["--sample"]);
    assert!(said.contains("is in use") && said.contains("--data"), "{said}");
    real.go();
    real.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_waits_for_space_on_the_disk() {
    let reserve = format!("database.reserve_mb={}", u32::MAX);
    let instance = Instance::start(&["--sample", "--set", &reserve]);
    let refused = "quipu_store_refusals_total{journal=\"relay_log\",reason=\"no_space\"} ";
    let started = Instant::now();
    while !instance.fetch("ops", "/metrics").await.1.contains(refused) {
        assert!(started.elapsed() < PATIENCE, "the relay of the sample is refused");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(instance.count("SELECT count(*) FROM relays").await, 0);
    instance.stop();
}

#[test]
fn without_an_instance_a_command_says_what_to_do() {
    let folder = enterable_folder();
    for arguments in [&["import", "-"][..], &["export"], &["verify"], &["relays", "list"], &["run", "ticker"]]
    {
        let said = run(quipu(folder.path()).args(arguments), folder.path()).refusal();
        for word in ["no instance runs on ./data", "quipu up --data ./data", "--data", "DATABASE_URL"] {
            assert!(said.contains(word), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn an_unknown_service_is_refused_with_the_known_ones() {
    let folder = enterable_folder();
    let said = run(quipu(folder.path()).args(["run", "ticker", "syncronizer"]), folder.path()).refusal();
    assert!(said.contains("there is no service `syncronizer`") && said.contains("synchronizer"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_run_beside_an_instance_and_on_after_its_own() {
    let instance = Instance::start(&["--set", "services.projector.enabled=false"]);
    let mut command = instance.command(&["run", "ticker", "projector"]);
    let mut second = command.args(["--set", "http.ops_address=127.0.0.1:0"]).spawn().unwrap();
    let sample = instance.run(&["sample", "--count", "500"]).ok();
    super::kit::import(&instance, sample.stdout.as_bytes(), &[]);
    await_count(&instance, "SELECT coalesce(sum(events), 0)::bigint FROM kind_totals", 500).await;
    signal(second.id(), Signal::SIGTERM);
    assert_eq!(wait(&mut second).unwrap().code(), Some(0));
    instance.run(&["verify"]).ok();
    instance.stop();
}

/// As `quipu … | head` when `head` has ended. A closed standard error (`2>&1 | head`) is no failure either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_pipe_ends_a_listing_silently() {
    const RELAY: &str = "ws://127.0.0.1:5";
    let instance = Instance::start(&[]);
    instance.run(&["relays", "add", RELAY]).ok();
    instance.run(&["messages", "token", "create", "--wayfarer", "w"]).ok();
    let sample = instance.run(&["sample", "--count", "50"]).ok();
    super::kit::import(&instance, sample.stdout.as_bytes(), &["--relay", RELAY]);
    let said = instance.folder().join("closed.err");
    for arguments in [
        &["sample", "--count", "5000"][..],
        &["export"],
        &["relays", "list"],
        &["relays", "list", "--json"],
        &["relays", "show", RELAY],
        &["archive", "status"],
        &["archive", "status", "--json"],
        &["archive", "coverage", "--relay", RELAY],
        &["messages", "token", "list"],
        &["messages", "token", "list", "--json"],
        &["check-config"],
        &["check-config", "--markdown"],
        &["setup-sql"],
        &["url"],
        &["verify"],
    ] {
        let status = |stderr: Stdio| {
            let mut child = instance.command(arguments).stdout(closed_pipe()).stderr(stderr).spawn().unwrap();
            wait(&mut child).unwrap_or_else(|| panic!("{arguments:?} does not end")).code()
        };
        assert_eq!(status(File::create(&said).unwrap().into()), Some(0), "{arguments:?}");
        assert_eq!(fs::read_to_string(&said).unwrap(), "", "{arguments:?}");
        assert_eq!(status(closed_pipe()), Some(0), "{arguments:?}");
    }
    // A command that fails reports it by its code, even if no one reads the reason.
    let mut child =
        instance.command(&["relays", "show", "wss://unknown.example"]).stderr(closed_pipe()).spawn();
    assert_eq!(wait(child.as_mut().unwrap()).unwrap().code(), Some(1));
    instance.stop();
}

/// The writing end of a pipe that has no reader.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn check_config_shows_json_and_refuses_by_key_and_reason() {
    let folder = enterable_folder();
    let check = |set: &[&str]| {
        let mut command = quipu(folder.path());
        command.arg("check-config");
        for text in set {
            command.args(["--set", text]);
        }
        run(&mut command, folder.path())
    };
    let shown: Value =
        serde_json::from_str(&check(&["services.synchronizer.catching_up_max=7"]).ok().stdout).unwrap();
    assert_eq!(shown["settings"]["services"]["synchronizer"]["catching_up_max"], 7);
    assert_eq!(shown["implementation"]["name"], "bigbrotr");

    let said = check(&["services.synchronizer.catching_up_max=many", "log.colour=red"]).refusal();
    for words in ["services.synchronizer.catching_up_max", "log.colour: unknown key"] {
        assert!(said.contains(words), "{said}");
    }
    // An argument that is no setting is reported together with the others.
    let said = check(&["nonsense", "log.colour=red", " =1"]).refusal();
    for words in ["nonsense: expected `section.key=value`", "log.colour: unknown key", " =1: expected"] {
        assert!(said.contains(words), "{said}");
    }
}
