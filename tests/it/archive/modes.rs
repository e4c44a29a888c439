//! Other implementations, and external databases.

use quipu::sample::SampleGenerator;
use quipu::store::embedded::{Embedded, EmbeddedConfig};
use tempfile::TempDir;

use super::kit::{Relay, await_complete, exported, free_port, import, now};
use crate::support::database::enterable_folder;
use crate::support::instance::{Instance, run, signal};
use crate::support::operator::OperatorServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lilbrotr_archives_without_tags_and_content_and_says_that_it_cannot_export() {
    let relay = Relay::start(SampleGenerator::paced(17, 800)).await;
    let mut instance = Instance::crawling(&[&relay.url], &["--implementation", "lilbrotr"]);
    instance.run(&["relays", "add", &relay.url]).ok();
    await_complete(&instance, &relay.url, now() - 180).await;
    let held = i64::try_from(relay.events.len()).unwrap();
    assert_eq!(instance.count("SELECT count(*) FROM events").await, held);
    assert_eq!(instance.count("SELECT count(*) FROM events_relays").await, held);
    let kept = "SELECT count(*) FROM events WHERE coalesce(tags::text, content, array_to_string(tagvalues, '')) IS NOT NULL";
    assert_eq!(instance.count(kept).await, 0);

    assert!(!instance.log().contains("quipu export"), "the summary suggests only what works");
    let refused = instance.run(&["export"]);
    assert_eq!(refused.stdout, "");
    assert!(refused.refusal().contains("stores neither tags nor content"));
    instance.run(&["verify"]).ok();

    // The same data folder with another implementation is refused.
    signal(instance.pid(), nix::sys::signal::Signal::SIGTERM);
    assert_eq!(instance.ended().code(), Some(0));
    let mut other = instance.command(&["up", "--port-base", &instance.port_base.to_string()]);
    let said = run(&mut other, instance.folder()).refusal();
    for words in ["holds implementation `lilbrotr`, not `bigbrotr`", "--implementation lilbrotr"] {
        assert!(said.contains(words), "{said}");
    }
    instance.assert_nothing_left();
    instance.go();
    assert_eq!(instance.count("SELECT count(*) FROM events").await, held);
    instance.stop();
}

/// An external PostgreSQL server.
async fn stranger() -> (TempDir, Embedded) {
    let folder = enterable_folder();
    let config = EmbeddedConfig {
        data: folder.path().join("data"),
        postgres_port: free_port(),
        pgbouncer_port: free_port(),
        postgresql_conf: "shared_buffers = '32MB'\nmax_connections = 100\n".to_owned(),
        database: "quipu".to_owned(),
    };
    let embedded = Embedded::start(config).await.unwrap();
    (folder, embedded)
}

/// Imports, counts and exports.
fn works(instance: &Instance) {
    let sample = instance.run(&["sample", "--count", "1000"]).ok();
    let total = import(instance, sample.stdout.as_bytes(), &[]);
    assert_eq!((total["stored"].as_u64(), total["known"].as_u64()), (Some(1_000), Some(0)));
    assert_eq!(exported(instance, &[]).len(), 1_000);
    instance.run(&["verify"]).ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_database_url_alone_quipu_makes_its_roles_and_its_own_pooler() {
    let server = OperatorServer::start().await;
    let admin = server.superuser_url("archive").expose().to_owned();
    let mut instance = Instance::start_with(&[], &[("DATABASE_URL", &admin)]);
    assert!(!instance.data().join("postgres").exists(), "no PostgreSQL of its own");
    let pooler = format!(":{}/archive", instance.port_base + 3);
    assert!(instance.url("database_url").expose().contains(&pooler));
    works(&instance);
    // Commands with `DATABASE_URL` set reach the same database.
    let sample = instance.run(&["sample", "--count", "50", "--seed", "2"]).ok();
    let file = instance.folder().join("more.jsonl");
    std::fs::write(&file, &sample.stdout).unwrap();
    let imported = instance.run_in_its_environment(&["import", file.to_str().unwrap()]).ok();
    assert_eq!(imported.stdout, "50 new, 0 stored before or kept away by an erasure, 0 refused\n");
    instance.run_in_its_environment(&["verify"]).ok();
    let another = admin.replace("/archive", "/elsewhere");
    let mut verify = instance.command(&["verify"]);
    let said = run(verify.env("DATABASE_URL", &another), instance.folder()).refusal();
    assert!(said.contains("has another database than DATABASE_URL"), "{said}");
    // Starts again on the existing database.
    signal(instance.pid(), nix::sys::signal::Signal::SIGTERM);
    assert_eq!(instance.ended().code(), Some(0));
    instance.assert_nothing_left();
    let said = instance.run_in_its_environment(&["verify"]).refusal();
    assert!(said.contains("no instance runs on"), "{said}");
    instance.go();
    assert_eq!(exported(&instance, &[]).len(), 1_050);
    instance.stop();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_an_external_pooler_quipu_starts_no_server_at_all() {
    let (_folder, server) = stranger().await;
    let urls = server.urls();
    let environment = [
        ("QUIPU_POOLER", "external"),
        ("DATABASE_URL", urls.write.expose()),
        ("QUIPU_SESSION_DATABASE_URL", urls.session.expose()),
        ("QUIPU_READ_DATABASE_URL", urls.read.expose()),
        ("QUIPU_OWNER_DATABASE_URL", urls.owner().unwrap().expose()),
    ];
    let instance = Instance::start_with(&[], &environment);
    for folder in ["postgres", "pgbouncer"] {
        assert!(!instance.data().join(folder).exists(), "no {folder} of its own");
    }
    assert_eq!(instance.url("database_url").expose(), urls.write.expose());
    works(&instance);
    instance.stop();
    server.stop().await;
}
