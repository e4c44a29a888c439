//! `quipu jobs` and `quipu workers` as a user types them.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::kit::{PDF, Room};
use crate::support::database::TestDatabase;
use crate::support::instance::{Ran, quipu, run, signal, wait};
use crate::support::proxy::eventually;

fn command(room: &Room, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = quipu(folder);
    command.env("BLOBFORGE_SERVER_URL", format!("http://{}", room.address)).args(arguments);
    command
}

fn ran(room: &Room, folder: &Path, arguments: &[&str]) -> Ran {
    run(&mut command(room, folder, arguments), folder)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_submitted_once_listed_shown_and_changed() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("books")).unwrap();
    for (name, content) in [("a.pdf", "a"), ("b.pdf", "b"), ("c.txt", "c")] {
        fs::write(at("books").join(name), content).unwrap();
    }
    let submit = ["jobs", "submit", "books", "--priority", "2", "--tags", "x,y", "--json"];
    let would = ran(&room, folder.path(), &[&submit[..], &["--dry-run"]].concat()).ok().json_lines();
    assert_eq!((would.len(), &would[0]["tags"]), (2, &json!(["x", "y"])));
    let submitted = ran(&room, folder.path(), &submit).ok();
    assert!(submitted.stderr.contains("stores no files"), "{}", submitted.stderr);
    let submitted = submitted.json_lines();
    assert_eq!((&submitted[0]["existing"], &submitted[1]["job_id"]), (&json!(false), &json!(2)));
    let again = ran(&room, folder.path(), &submit).ok().json_lines();
    assert_eq!(
        again[0],
        json!({ "existing": true, "job_id": 1, "source_path": "books/a.pdf", "status": "pending" })
    );
    let plain =
        ran(&room, folder.path(), &["jobs", "submit", "--type", "image", "--metadata", "{\"w\": 1}"]).ok();
    assert!(plain.stdout.contains("  submitted"), "{}", plain.stdout);

    let listed = ran(&room, folder.path(), &["jobs", "list", "--type", "pdf", "--json"]).ok().json_lines();
    let ids: Vec<&Value> = listed.iter().map(|job| &job["id"]).collect();
    assert_eq!(ids, [&json!(2), &json!(1)]);
    let table = ran(&room, folder.path(), &["jobs", "list", "-S", "pending", "-l", "1"]).ok();
    assert!(table.stdout.contains("books/b.pdf") && table.stderr.contains("1 of 3 jobs"), "{table:?}");
    assert!(ran(&room, folder.path(), &["jobs", "list", "-S", "lost"]).stderr.contains("possible values"));

    let changed = ran(&room, folder.path(), &["jobs", "cancel", "1", "99", "--why", "mistake"]);
    assert_eq!((changed.status.code(), changed.stdout.as_str()), (Some(1), "1  cancelled\n"));
    assert!(changed.stderr.contains("job 99"), "{}", changed.stderr);
    ran(&room, folder.path(), &["jobs", "retry", "1", "--priority", "5", "--json"]).ok();
    ran(&room, folder.path(), &["jobs", "priority", "4", "1", "2"]).ok();
    let shown = ran(&room, folder.path(), &["jobs", "show", "1", "--json"]).ok().json_lines().remove(0);
    assert_eq!((&shown["status"], &shown["priority"]), (&json!("pending"), &json!(4)), "{shown}");
    assert_eq!(shown["history"][1]["why"], "mistake");
    let text = ran(&room, folder.path(), &["jobs", "show", "1"]).ok().stdout;
    assert!(text.contains("reprioritized") && text.contains("books/a.pdf"), "{text}");
    let stats = ran(&room, folder.path(), &["jobs", "stats", "--json"]).ok().json_lines().remove(0);
    assert_eq!((&stats["pending_jobs"], &stats["total_jobs"]), (&json!(3), &json!(3)), "{stats}");
    assert!(ran(&room, folder.path(), &["jobs", "stats"]).ok().stdout.contains("pending jobs"));
    let missing = ran(&room, folder.path(), &["jobs", "show", "99"]).refusal();
    assert!(missing.contains("404"), "{missing}");
    let nowhere = ["jobs", "--server", "http://127.0.0.1:1", "stats"];
    let nowhere = ran(&room, folder.path(), &nowhere).refusal();
    assert!(nowhere.contains("connection refused") && nowhere.contains("--server"), "{nowhere}");
    for arguments in [["jobs", "stats"], ["workers", "list"]] {
        let mut command = quipu(folder.path());
        let said = run(command.args(["--data", "elsewhere"]).args(arguments), folder.path()).refusal();
        for word in ["--server", "no instance runs on elsewhere"] {
            assert!(said.contains(word), "{arguments:?}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_created_listed_drained_and_removed_with_a_token() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.compat_unauthenticated = Some(false)).await;
    let token = room.token("root", true, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let workers = |arguments: &[&str]| {
        let mut command = command(&room, folder.path(), &[&["workers"], arguments].concat());
        run(command.env("BLOBFORGE_API_TOKEN", &token), folder.path())
    };
    let stranger = ran(&room, folder.path(), &["workers", "list"]).refusal();
    assert!(stranger.contains("401") && stranger.contains("QUIPU_JOBS_TOKEN"), "{stranger}");
    let created = workers(&["create", "w 1/a", "--type", "pdf", "--name", "first", "--json"]).ok();
    let secret = created.json_lines().remove(0)["secret"].clone();
    assert!(secret.as_str().unwrap().starts_with("bfw_"), "{secret}");
    assert!(workers(&["regenerate", "w 1/a"]).ok().stdout.starts_with("bfw_"));
    for (verb, status) in [
        ("suspend", "suspended"),
        ("resume", "resumed"),
        ("drain", "draining"),
        ("disable", "disabled"),
        ("enable", "enabled"),
    ] {
        assert_eq!(workers(&[verb, "w 1/a"]).ok().stdout, format!("w 1/a  {status}\n"));
    }
    let listed = workers(&["list", "--json"]).ok().json_lines();
    assert_eq!((&listed[0]["id"], &listed[0]["status"]), (&json!("w 1/a"), &json!("draining")));
    assert!(workers(&["list"]).ok().stdout.contains("first"));
    assert_eq!(workers(&["remove", "w 1/a", "--json"]).ok().json_lines()[0]["status"], "removed");
    assert_eq!(workers(&["list", "--json"]).ok().stdout, "");
    assert!(workers(&["drain", "w 1/a"]).refusal().contains("404"));
    assert!(workers(&["create", "nameless"]).ok().stdout.starts_with("bfw_"));
}

/// `quipu jobs watch` in the background.
struct Watch {
    folder: tempfile::TempDir,
    child: Child,
}

impl Watch {
    fn start(room: &Room, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create(folder.path().join(name)).unwrap();
        let mut command = command(room, folder.path(), &[&["jobs", "watch", "--json"], arguments].concat());
        let child = command.stdout(file("out")).stderr(file("err")).spawn().unwrap();
        Self { folder, child }
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    /// Names and numbers of the jobs' events so far.
    fn seen(&self) -> Vec<(String, i64)> {
        let lines = self.text("out");
        let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of_jobs = events.filter_map(|event| {
            Some((event["event"].as_str()?.to_owned(), event["data"]["job_id"].as_i64()?))
        });
        of_jobs.collect()
    }

    fn code(&mut self) -> Option<i32> {
        let status = wait(&mut self.child);
        status.unwrap_or_else(|| panic!("it does not end: {}", self.text("err"))).code()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_goes_on_after_a_restart_and_ends_with_the_named_jobs() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let address = room.address;
    let one = room.submit(PDF).await.job;
    let mut all = Watch::start(&room, &[]);
    let mut named = Watch::start(&room, &[&one.to_string()]);
    // A heartbeat of the stream names its place, from which a reader can go on; an event does so at once.
    eventually("it reads", async || {
        room.submit(PDF).await;
        !all.seen().is_empty()
    })
    .await;
    drop(room);
    eventually("the port is free", async || std::net::TcpListener::bind(address).is_ok()).await;
    // What happens while it is not connected is shown afterwards.
    let other = Room::on(&database).await;
    let missed = other.submit(PDF).await.job;
    let room = Room::with(&database, |settings| settings.address = Some(address)).await;
    eventually("it has shown what it missed", async || {
        all.seen().contains(&("job_created".to_owned(), missed))
    })
    .await;
    let claimed = room.claim("w", 1, 60).await.remove(0);
    assert_eq!(claimed.facts.job, one);
    room.complete(&claimed, "w").await.unwrap();
    assert_eq!(named.code(), Some(0), "{}", named.text("err"));
    assert!(named.seen().iter().all(|(_, job)| *job == one), "{:?}", named.seen());
    eventually("it shows the end", async || all.seen().contains(&("job_completed".to_owned(), one))).await;
    signal(all.child.id(), Signal::SIGTERM);
    assert_eq!(all.code(), Some(0));

    // A job that has ended before is known at once.
    let mut ended = Watch::start(&room, &[&one.to_string()]);
    assert_eq!(ended.code(), Some(0), "{}", ended.text("err"));
    let dead = room.submit(PDF).await.job;
    room.post(&format!("/api/jobs/{dead}/cancel"), &json!({})).await;
    let mut dead = Watch::start(&room, &[&dead.to_string()]);
    assert_eq!(dead.code(), Some(1), "{}", dead.text("err"));
}
