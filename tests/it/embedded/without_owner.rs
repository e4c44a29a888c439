//! A service without the owner's URL checks the schema with its own login, and runs if it is current.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use quipu::store::DatabaseUrls;

use super::kit::folder;
use super::signals::Under;
use crate::support::database::{TestDatabase, free_port_block};
use crate::support::instance::{quipu, run};

/// A command with the URLs of the services alone.
fn service(folder: &Path, urls: &DatabaseUrls, arguments: &[&str]) -> Command {
    let mut command = quipu(folder);
    command.arg("--data").arg(folder.join("data")).args(arguments).env("QUIPU_POOLER", "external");
    command.env("DATABASE_URL", urls.write.expose());
    command.env("QUIPU_SESSION_DATABASE_URL", urls.session.expose());
    command
}

fn messages(folder: &Path, urls: &DatabaseUrls) -> Command {
    let addresses = ["--ws-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
    let mut command = service(folder, urls, &["run", "messages", "--set", "http.ops_address=127.0.0.1:0"]);
    command.args(addresses);
    command
}

/// The service runs until a signal.
fn runs(folder: &Path, urls: &DatabaseUrls) {
    let mut running = Under::start(folder, &mut messages(folder, urls));
    running.until_said("messages on 127.0.0.1:");
    running.end(Signal::SIGTERM, 0);
}

/// `quipu migrate` with the owner's URL.
fn migrate(folder: &Path, urls: &DatabaseUrls) {
    let mut command = service(folder, urls, &["migrate"]);
    command.env("QUIPU_OWNER_DATABASE_URL", urls.owner().unwrap().expose());
    run(&mut command, folder).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_the_owners_url_runs_on_a_current_schema_and_names_an_older_one() {
    let (folder, database) = (folder(), TestDatabase::new().await);
    let (folder, urls, owner) = (folder.path(), database.urls(), database.owner().await);
    runs(folder, &urls);

    // Functions that another version has applied.
    let other =
        "INSERT INTO implementation_log (name, procedures_sha256) VALUES ('bigbrotr', sha256('other'))";
    owner.batch_execute(other).await.unwrap();
    let told = run(&mut messages(folder, &urls), folder).refusal();
    assert!(
        told.contains("the functions and procedures in the database are not those of this Quipu"),
        "{told}"
    );
    assert!(told.contains("run `quipu migrate`"), "{told}");
    migrate(folder, &urls);
    runs(folder, &urls);

    // A newer schema that supports this binary.
    let newer = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
                 SELECT 998, 'from_the_future', applied_on, '1' FROM refinery_schema_history LIMIT 1";
    owner.batch_execute(newer).await.unwrap();
    owner.batch_execute(other).await.unwrap();
    runs(folder, &urls);
    owner.batch_execute("DELETE FROM refinery_schema_history WHERE version = 998").await.unwrap();

    let mut elsewhere = messages(folder, &urls);
    let told = run(elsewhere.args(["--implementation", "lilbrotr"]), folder).refusal();
    assert!(told.contains("the database holds implementation `bigbrotr`, not `lilbrotr`"), "{told}");

    let newest = "SELECT max(version) FROM refinery_schema_history";
    let needed: i32 = owner.query_one(newest, &[]).await.unwrap().get(0);
    let older = "DELETE FROM refinery_schema_history WHERE version = $1";
    owner.execute(older, &[&needed]).await.unwrap();
    let told = run(&mut messages(folder, &urls), folder).refusal();
    let found = needed - 1;
    let expected = format!("the schema is at migration {found}, and this Quipu needs migration {needed}");
    assert!(told.contains(&expected) && told.contains("run `quipu migrate`"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_migrated_by_the_command_that_the_error_names() {
    let (folder, database) = (folder(), TestDatabase::empty().await);
    let (folder, urls) = (folder.path(), database.urls());
    let told = run(&mut messages(folder, &urls), folder).refusal();
    assert!(told.contains("the schema is at migration 0") && told.contains("run `quipu migrate`"), "{told}");
    migrate(folder, &urls);
    runs(folder, &urls);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_owner_may_do_says_that_it_needs_the_owners_url() {
    let (folder, database) = (folder(), TestDatabase::new().await);
    let (folder, urls) = (folder.path(), database.urls());
    let event = "00".repeat(32);
    for arguments in [
        &["migrate"] as &[&str],
        &["verify"],
        &["rebuild", "relays"],
        &["rebase"],
        &["erase", "--event", &event, "--reason", "x", "--yes"],
        &["retention", "--before", "2020-12", "--yes"],
        &["url", "owner"],
        &["run", "vanisher", "--set", "http.ops_address=127.0.0.1:0"],
    ] {
        let told = run(&mut service(folder, &urls, arguments), folder).refusal();
        assert!(told.contains("set QUIPU_OWNER_DATABASE_URL"), "{arguments:?}: {told}");
    }
    run(&mut service(folder, &urls, &["setup-sql", "--check"]), folder).ok();
    run(&mut service(folder, &urls, &["relays", "list"]), folder).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_not_added_to_a_given_database_that_is_in_use() {
    let (folder, archive, messages) = (folder(), TestDatabase::new().await, TestDatabase::new().await);
    let folder = folder.path();
    archive.owner().await.batch_execute("SELECT insert_relay('wss://relay.example.com')").await.unwrap();
    let token = ["messages", "token", "create", "--wayfarer", "alice"];
    run(&mut service(folder, &messages.urls(), &token), folder).ok();
    let refused = |database: &TestDatabase| {
        let ports = free_port_block().to_string();
        let arguments = ["up", "--sample", "--port-base", &ports];
        let told = run(&mut service(folder, &database.urls(), &arguments), folder).refusal();
        assert!(told.contains("is in use") && told.contains("another database"), "{told}");
    };
    refused(&archive);
    refused(&messages);
    // The mark of another database's sample changes nothing.
    fs::write(folder.join("data/sample"), "database 1 of server 1\n").unwrap();
    refused(&archive);
}
