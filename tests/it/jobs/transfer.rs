//! Files of jobs by the command line: `quipu jobs submit`, `ingest` and `download`, and `quipu worker`, against the
//! real storages.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use quipu::base::Secret;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::file_kit::{FileRoom, download, send, sha256, source_key};
use super::kit::{Room, problems};
use super::s3::S3Room;
use crate::support::instance::{Ran, quipu, run};
use crate::support::proxy::{Fault, Proxy, eventually};
use crate::support::terminal::Terminal;

/// A file that goes up in three parts, bytes.
const LARGE: u32 = 17 * 1024 * 1024;

/// Bytes that are no text and no JSON.
fn content(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1] ^ n.to_le_bytes()[2]).collect()
}

/// A command in `folder`, whose notes are in `folder/state`.
fn command(server: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = quipu(folder);
    command.env("BLOBFORGE_SERVER_URL", server).env("XDG_STATE_HOME", folder.join("state"));
    command.args(arguments);
    command
}

fn url(room: &Room) -> String {
    format!("http://{}", room.address)
}

fn ran(room: &Room, folder: &Path, arguments: &[&str]) -> Ran {
    run(&mut command(&url(room), folder, arguments), folder)
}

/// The only line of a command's output.
fn line(ran: Ran) -> Value {
    let mut lines = ran.ok().json_lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// Runs the jobs of type `bin` that there are.
fn work(room: &Room, folder: &Path, exec: &str) {
    let place = folder.to_str().unwrap();
    ran(room, folder, &["worker", "--type", "bin", "--until-idle", "--folder", place, "--exec", exec]).ok();
}

async fn job(room: &Room, id: i64) -> Value {
    room.get(&format!("/api/jobs/{id}")).await.1
}

/// The file of a job as the API gives it.
async fn file(room: &Room, id: i64, kind: &str) -> Vec<u8> {
    let (status, answer) = room.get(&format!("/api/files/{id}/{kind}/url")).await;
    assert_eq!(status, 200, "{answer}");
    download(&answer["url"]).await.body
}

/// Submits a file, works on it and downloads the output. `settled` returns when the storage has checked the source.
async fn round_trip(room: &Room, settled: impl AsyncFn()) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let source = content(100_000);
    fs::write(at("a.bin"), &source).unwrap();
    let submit = ["jobs", "submit", "a.bin", "--type", "bin", "--json"];
    let submitted = line(ran(room, folder.path(), &submit));
    assert_eq!(
        submitted,
        json!({ "job_id": 1, "existing": false, "uploaded": true, "source_path": "a.bin" })
    );
    settled().await;
    let again = line(ran(room, folder.path(), &submit));
    assert_eq!((&again["existing"], &again["uploaded"]), (&json!(true), &json!(false)), "{again}");
    let other_type = ["jobs", "submit", "a.bin", "--type", "other", "--json"];
    let other = line(ran(room, folder.path(), &other_type));
    assert_eq!((&other["existing"], &other["uploaded"]), (&json!(false), &json!(false)), "{other}");
    let early = ran(room, folder.path(), &["jobs", "download", "1"]).refusal();
    assert!(early.contains("the output of job 1, which is pending") && early.contains("404"), "{early}");

    work(
        room,
        folder.path(),
        r#"sh -c 'test "${1%.bin}" != "$1" && tail -c +2 "$1" > "$2"' sh {input} {output}"#,
    );
    let done = job(room, 1).await;
    assert_eq!(done["status"], "completed", "{done}");
    let output = &source[1..];
    let recorded = &done["result"]["output"];
    assert_eq!((&recorded["size"], &recorded["sha256"]), (&json!(output.len()), &json!(sha256(output))));
    assert!(file(room, 1, "output").await == output && file(room, 1, "source").await == source);

    let told = line(ran(room, folder.path(), &["jobs", "download", "1", "--json"]));
    assert_eq!(
        told,
        json!({ "job_id": 1, "path": "1-output", "size": output.len(), "sha256": sha256(output) })
    );
    assert!(fs::read(at("1-output")).unwrap() == output);
    let exists = ran(room, folder.path(), &["jobs", "download", "1"]).refusal();
    assert!(exists.contains("1-output exists"), "{exists}");
    fs::write(at("1-output"), "old").unwrap();
    ran(room, folder.path(), &["jobs", "download", "1", "--force"]).ok();
    assert!(fs::read(at("1-output")).unwrap() == output);
    ran(room, folder.path(), &["jobs", "download", "1", "--source", "-o", "copy"]).ok();
    assert!(fs::read(at("copy")).unwrap() == source);
    let piped = command(&url(room), folder.path(), &["jobs", "download", "1", "-o", "-"]).output().unwrap();
    assert!(piped.status.success() && piped.stdout == output, "{:?}", piped.status);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_and_a_binary_output_travel_through_the_folder_byte_for_byte() {
    let files = FileRoom::new().await;
    round_trip(&files.room, async || {}).await;
    assert_eq!(files.keys().await, ["outputs/1/1/output".to_owned(), source_key(&content(100_000))]);
    assert_eq!(problems(&files.database).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_and_a_binary_output_travel_through_a_bucket_byte_for_byte() {
    let s3 = S3Room::new().await;
    let checked =
        async || eventually("the source is checked", async || s3.entries("verified").await > 0).await;
    round_trip(&s3.room, checked).await;
    assert!(s3.has("outputs/1/1/output"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_an_upload_url_in_its_claim_asks_for_one() {
    let files = FileRoom::with(|files| files.compat_claim_upload_url = false).await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    ran(&files.room, folder.path(), &["jobs", "submit", "a", "--type", "bin"]).ok();
    work(&files.room, folder.path(), "cp {input} {output}");
    assert_eq!(job(&files.room, 1).await["status"], "completed");
    assert_eq!(file(&files.room, 1, "output").await, b"a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_missing_or_another_one_fails_the_attempt() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let folder = tempfile::tempdir().unwrap();
    let (missing, changed) = (b"never uploaded".as_slice(), b"as submitted".as_slice());
    room.ok("/api/jobs", &json!({ "type": "bin", "source_hash": sha256(missing) })).await;
    fs::write(folder.path().join("a"), changed).unwrap();
    ran(room, folder.path(), &["jobs", "submit", "a", "--type", "bin"]).ok();
    fs::write(files.objects().join(source_key(changed)), "as it is now").unwrap();
    work(room, folder.path(), "cp {input} {output}");
    let why = async |id| job(room, id).await["last_error"].as_str().unwrap().to_owned();
    assert!(why(1).await.contains("404"), "{}", why(1).await);
    assert!(why(2).await.contains("has the SHA-256"), "{}", why(2).await);
    assert_eq!(job(room, 2).await["status"], "failed");
    let refused = ran(room, folder.path(), &["jobs", "download", "2", "--source", "-o", "b"]).refusal();
    assert!(refused.contains("has the SHA-256") && !folder.path().join("b").exists(), "{refused}");
}

/// A `git` whose `git lfs smudge` gives this content. Returns the search path with it.
fn git_that_gives(folder: &Path, content: &str) -> String {
    fs::create_dir_all(folder.join("bin")).unwrap();
    let (git, held) = (folder.join("bin/git"), folder.join("bin/held"));
    fs::write(&held, content).unwrap();
    fs::write(&git, format!("#!/bin/sh\n[ \"$1 $2\" = 'lfs smudge' ] && exec cat '{}'\n", held.display()))
        .unwrap();
    fs::set_permissions(&git, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", folder.join("bin").display(), std::env::var_os("PATH").unwrap().display())
}

fn pointer(content: &str) -> String {
    let (hash, size) = (sha256(content.as_bytes()), content.len());
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{hash}\nsize {size}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_of_a_folder_are_ingested_once_and_pointers_of_git_lfs_as_their_files() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join("books").join(name);
    fs::create_dir_all(at("deep")).unwrap();
    for (name, text) in
        [("a.pdf", "same"), ("copy.pdf", "same"), ("notes.txt", "none"), ("deep/b.pdf", &*pointer("large"))]
    {
        fs::write(at(name), text).unwrap();
    }
    let path = git_that_gives(folder.path(), "large");
    let ingest = |further: &[&str]| {
        let arguments = [&["jobs", "ingest", "books", "--json"], further].concat();
        run(command(&url(room), folder.path(), &arguments).env("PATH", &path), folder.path())
    };
    let would = ingest(&["--dry-run"]).ok().json_lines();
    assert_eq!((would.len(), &would[2]["source_hash"]), (3, &json!(sha256(b"large"))));
    assert_eq!(files.keys().await, Vec::<String>::new());

    let done = ingest(&[]).ok().json_lines();
    let told: Vec<_> =
        done.iter().map(|job| (&job["source_path"], &job["existing"], &job["uploaded"])).collect();
    let [no, yes] = [json!(false), json!(true)];
    let [a, copy, b] = ["books/a.pdf", "books/copy.pdf", "books/deep/b.pdf"].map(Value::from);
    assert_eq!(told, [(&a, &no, &yes), (&copy, &yes, &no), (&b, &no, &yes)]);
    let mut keys = [source_key(b"same"), source_key(b"large")];
    keys.sort();
    assert_eq!(files.keys().await, keys);
    let last = &done[2]["job_id"];
    assert_eq!(job(room, last.as_i64().unwrap()).await["tags"], json!(["deep", "b"]));
    assert_eq!(fs::read_to_string(at("deep/b.pdf")).unwrap(), pointer("large"), "the working tree stays");
    let again = ingest(&[]).ok().json_lines();
    assert!(again.iter().all(|job| job["existing"] == true && job["uploaded"] == false), "{again:?}");
}

/// Submits a file whose content is another one than its hash says, which a changed `git lfs` brings about.
async fn another_content(room: &Room, why: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.pdf"), pointer("wanted")).unwrap();
    fs::write(folder.path().join("b.pdf"), "good").unwrap();
    let path = git_that_gives(folder.path(), "others");
    let submit = ["jobs", "submit", "a.pdf", "b.pdf", "--json"];
    let ran = run(command(&url(room), folder.path(), &submit).env("PATH", path), folder.path());
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stderr.contains("a.pdf") && ran.stderr.contains(why), "{}", ran.stderr);
    assert!(ran.stderr.contains("no job was submitted"), "{}", ran.stderr);
    assert_eq!(ran.json_lines()[0]["source_path"], "b.pdf", "the others are submitted");
    assert_eq!(room.get("/api/stats").await.1["total_jobs"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_content_than_that_of_the_hash_is_refused_and_submits_no_job() {
    let files = FileRoom::new().await;
    another_content(&files.room, "422").await;
    assert_eq!(files.keys().await, [source_key(b"good")]);
    let s3 = S3Room::new().await;
    another_content(&s3.room, "400").await;
    // This server stores what it refuses, which Amazon's does not.
    assert!(s3.has(&source_key(b"good")));
}

/// The only note about an upload, if there is one.
fn note(folder: &Path) -> Option<(PathBuf, Value)> {
    let entries = fs::read_dir(folder.join("state/quipu/uploads")).ok()?;
    let mut notes = entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some());
    let path = notes.next()?;
    let note = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    Some((path, note))
}

/// Kills the client in the middle of an upload in parts, and repeats its command. Then a worker copies the file.
async fn interrupted(room: &Room) {
    let folder = tempfile::tempdir().unwrap();
    let source = content(LARGE);
    fs::write(folder.path().join("a.bin"), &source).unwrap();
    let proxy = Proxy::before(&Secret::new(url(room))).await;
    let server = proxy.url(&Secret::new(url(room))).expose().to_owned();
    let submit = || command(&server, folder.path(), &["jobs", "submit", "a.bin", "--type", "bin", "--json"]);
    proxy.strike("\"from\":2", Fault::Silence);
    let log = |name: &str| File::create(folder.path().join(name)).unwrap();
    let mut killed = submit().stdout(log("out")).stderr(log("err")).spawn().unwrap();
    eventually("all parts but the second have arrived", async || {
        let etags = note(folder.path()).map(|(_, note)| note["etags"].clone()).unwrap_or_default();
        let there: Vec<_> = etags.as_object().into_iter().flatten().map(|(part, _)| part.clone()).collect();
        there == ["1", "3"]
    })
    .await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(room.get("/api/stats").await.1["total_jobs"], 0, "no job without its source");
    let mode = note(folder.path()).unwrap().0.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Counts the requests for a part from now on.
    let at_once = CancellationToken::new();
    at_once.cancel();
    for _ in 0..3 {
        proxy.strike("/multipart/parts", Fault::DelayUntil(at_once.clone()));
    }
    let again = run(&mut submit(), folder.path()).ok();
    assert!(again.stderr.contains("2 of 3 parts are there"), "{}", again.stderr);
    assert_eq!(proxy.struck(), 2, "the silent request, and the one for the second part");
    assert_eq!(line(again)["uploaded"], true);
    assert_eq!(note(folder.path()), None);
    assert!(file(room, 1, "source").await == source);

    // The output is large as well.
    work(room, folder.path(), "cp {input} {output}");
    let done = job(room, 1).await;
    assert_eq!(
        (&done["status"], &done["result"]["output"]["size"]),
        (&json!("completed"), &json!(LARGE)),
        "{done}"
    );
    ran(room, folder.path(), &["jobs", "download", "1", "-o", "b.bin"]).ok();
    assert!(fs::read(folder.path().join("b.bin")).unwrap() == source);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_upload_to_the_folder_goes_on_after_the_client_was_killed() {
    let files = FileRoom::new().await;
    interrupted(&files.room).await;
    assert_eq!(files.keys().await, ["outputs/1/1/output".to_owned(), source_key(&content(LARGE))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_upload_to_a_bucket_goes_on_after_the_client_was_killed() {
    let s3 = S3Room::new().await;
    interrupted(&s3.room).await;
    eventually("the source was read", async || s3.entries("verified").await > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_breaks_off_is_sent_again_and_an_upload_that_is_unknown_begins_anew() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let folder = tempfile::tempdir().unwrap();
    let source = content(LARGE);
    fs::write(folder.path().join("a.bin"), &source).unwrap();
    let proxy = Proxy::before(&Secret::new(url(room))).await;
    let server = proxy.url(&Secret::new(url(room))).expose().to_owned();
    let key = source_key(&source);
    let note = json!({
        "server": server, "key": key, "size": LARGE, "part_size": 8 << 20, "upload_id": "e30.e30",
        "etags": { "1": "a", "2": "b", "3": "c" },
    });
    let notes = folder.path().join("state/quipu/uploads");
    fs::create_dir_all(&notes).unwrap();
    let name = sha256(format!("{server}\n{key}").as_bytes());
    fs::write(notes.join(format!("{name}.json")), note.to_string()).unwrap();
    proxy.strike("PUT /objects/", Fault::HalfClose);
    let submit = ["jobs", "submit", "a.bin", "--type", "bin", "--json"];
    let submitted = run(&mut command(&server, folder.path(), &submit), folder.path()).ok();
    assert!(submitted.stderr.contains("3 of 3 parts are there"), "{}", submitted.stderr);
    assert!(submitted.stderr.contains("trying again"), "{}", submitted.stderr);
    assert_eq!(proxy.struck(), 1);
    assert_eq!(line(submitted)["uploaded"], true);
    assert!(file(room, 1, "source").await == source);
    assert_eq!(files.files().len(), 1, "no part is left");
    assert_eq!(fs::read_dir(notes).unwrap().count(), 0);
}

/// Completes an upload in parts twice, as a client does that did not get the first answer.
async fn completed_twice(room: &Room) {
    let content = b"source in one part";
    let wanted = json!({ "key": source_key(content), "size": content.len() });
    let begun = room.ok("/api/files/multipart", &wanted).await;
    let id = &begun["upload_id"];
    let parts = room.ok("/api/files/multipart/parts", &json!({ "upload_id": id })).await;
    let sent = send(parts["parts"][0]["url"].as_str().unwrap(), "PUT", "", content).await;
    let complete = json!({ "upload_id": id, "etags": [sent.header("etag").unwrap()] });
    for _ in 0..2 {
        let done = room.ok("/api/files/multipart/complete", &complete).await;
        assert_eq!(done["status"], "completed");
    }
    room.ok("/api/jobs", &json!({ "type": "bin", "source_hash": sha256(content) })).await;
    assert_eq!(file(room, 1, "source").await, content);
}

#[tokio::test]
async fn an_upload_in_parts_that_is_completed_again_is_answered_as_before() {
    completed_twice(&FileRoom::new().await.room).await;
    completed_twice(&S3Room::new().await.room).await;
    // Not one that has never been complete.
    let files = FileRoom::new().await;
    let room = &files.room;
    let begun = room.ok("/api/files/multipart", &json!({ "key": source_key(b"a"), "size": 1 })).await;
    let early = json!({ "upload_id": begun["upload_id"] });
    let (status, answer) = room.post("/api/files/multipart/complete", &early).await;
    assert_eq!((status, &answer["code"]), (409, &json!("part_missing")), "{answer}");
}

#[tokio::test]
async fn a_source_that_is_there_is_told_to_clients_that_ask() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let ask = json!({ "key": source_key(b"a"), "size": 1, "if_missing": true });
    let link = room.ok("/api/files/upload-url", &ask).await;
    assert_eq!(super::file_kit::upload(&link, b"a").await.status, 200);
    for path in ["/api/files/upload-url", "/api/files/multipart"] {
        let told = room.ok(path, &ask).await;
        assert_eq!(told, json!({ "key": source_key(b"a"), "exists": true }));
    }
    // A client of the original gets its URL.
    let link = room.ok("/api/files/upload-url", &json!({ "key": source_key(b"a") })).await;
    assert!(link["url"].is_string() && link.get("exists").is_none(), "{link}");

    // In a bucket a source counts when it was checked.
    let s3 = S3Room::new().await;
    let link = s3.room.ok("/api/files/upload-url", &ask).await;
    assert_eq!(super::file_kit::upload(&link, b"a").await.status, 200);
    let is_told = async || s3.room.ok("/api/files/multipart", &ask).await["exists"] == true;
    eventually("it is checked", async || s3.entries("verified").await > 0).await;
    assert!(is_told().await);
    // No other content can come by a URL that is given later.
    s3.room.ok("/api/files/upload-url", &json!({ "key": source_key(b"a") })).await;
    assert!(is_told().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bar_is_drawn_on_a_terminal_alone() {
    let files = FileRoom::new().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.bin"), content(LARGE)).unwrap();
    let submit = |further: &[&str]| {
        let arguments = [&["jobs", "submit", "a.bin", "--type", "bin"], further].concat();
        let mut command = command(&url(&files.room), folder.path(), &arguments);
        command.stdout(File::create(folder.path().join("out")).unwrap());
        Terminal::of(&mut command)
    };
    let (terminal, following) = submit(&[]);
    terminal.until_drawn(&["MiB of", "a.bin"]);
    assert!(following.end().success());
    let (terminal, following) = submit(&["--json", "--again"]);
    assert!(following.end().success());
    assert_eq!(terminal.drawn(), "");
    let piped =
        ran(&files.room, folder.path(), &["jobs", "submit", "a.bin", "--type", "bin", "--again"]).ok();
    assert_eq!(piped.stderr, "");
}
