//! `quipu jobs import` with a database of BlobForge's schema.

use std::path::{Path, PathBuf};

use quipu::services::jobs::decide::unique_key;
use quipu::services::jobs::edge::hash;
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::kit::{Room, http, problems};
use crate::support::database::TestDatabase;
use crate::support::instance::{Ran, quipu, run};

/// The schema after all six migrations of BlobForge.
const SCHEMA: &str = "
    CREATE TABLE workers (
        id TEXT PRIMARY KEY, type TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'online', last_heartbeat DATETIME,
        current_job_id INTEGER, metadata JSON, created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
        updated_at DATETIME DEFAULT CURRENT_TIMESTAMP, name TEXT, secret_hash TEXT, enabled BOOLEAN DEFAULT TRUE);
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending',
        priority INTEGER DEFAULT 3, source_hash TEXT NOT NULL, source_path TEXT, source_size INTEGER, worker_id TEXT,
        started_at DATETIME, completed_at DATETIME, attempts INTEGER DEFAULT 0, max_attempts INTEGER DEFAULT 3,
        last_error TEXT, tags JSON, metadata JSON, result JSON, created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
        updated_at DATETIME DEFAULT CURRENT_TIMESTAMP, output_path TEXT, UNIQUE (type, source_hash));
    CREATE TABLE files (
        id INTEGER PRIMARY KEY AUTOINCREMENT, job_id INTEGER NOT NULL, type TEXT NOT NULL, s3_key TEXT NOT NULL, size INTEGER,
        content_type TEXT, checksum TEXT, metadata JSON, created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
        FOREIGN KEY (job_id) REFERENCES jobs (id));
    CREATE TABLE users (id TEXT PRIMARY KEY, email TEXT UNIQUE, provider TEXT NOT NULL);
    CREATE TABLE api_tokens (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, token_hash TEXT UNIQUE NOT NULL, user_id TEXT,
        is_admin BOOLEAN DEFAULT FALSE, scopes JSON, expires_at DATETIME, last_used_at DATETIME,
        created_at DATETIME DEFAULT CURRENT_TIMESTAMP);
    CREATE INDEX idx_files_job ON files (job_id);
    PRAGMA user_version = 6;";

fn sha256(text: &str) -> String {
    hex::encode(hash(text))
}

/// A database with one job of each status, two workers and three tokens, as BlobForge writes them: JSON as bytes.
fn fixture(folder: &Path) -> PathBuf {
    let path = folder.join("blobforge.db");
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    for (id, status, priority, attempts, error, result) in [
        (1, "completed", 3, 2, Some("first try"), Some(r#"{"pages": 9}"#)),
        (2, "pending", 1, 0, None, None),
        (3, "running", 3, 1, None, None),
        (4, "dead", 5, 3, Some("no space"), None),
        (5, "cancelled", 3, 0, None, None),
        (6, "pending", 1, 1, Some("again"), None),
    ] {
        let is_done = status == "completed";
        connection
            .execute(
                "INSERT INTO jobs (id, type, status, priority, source_hash, source_path, source_size, worker_id, started_at,
                                   completed_at, attempts, last_error, tags, metadata, result, created_at)
                 VALUES (?1, 'pdf', ?2, ?3, ?4, ?5, 77, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, '2025-01-02 03:04:05')",
                params![
                    id,
                    status,
                    priority,
                    format!("hash{id}"),
                    format!("/books/{id}.pdf"),
                    is_done.then_some("old-worker"),
                    is_done.then_some("2025-01-02 04:00:00"),
                    is_done.then_some("2025-01-02 05:00:00"),
                    attempts,
                    error,
                    br#"["books"]"#,
                    br#"{"page": 1}"#,
                    result.map(str::as_bytes),
                ],
            )
            .unwrap();
    }
    connection
        .execute_batch(
            "INSERT INTO files (job_id, type, s3_key, size, content_type, checksum) VALUES
                 (1, 'source', 'sources/hash1', 77, 'application/pdf', NULL), (1, 'output', 'outputs/hash1', 5, NULL, 'abc');
             INSERT INTO jobs (id, type, status, source_hash, tags) VALUES (7, 'pdf', 'pending', 'hash7', '{broken');
             INSERT INTO jobs (id, type, status, source_hash) VALUES (8, 'pdf', 'lost', 'hash8')",
        )
        .unwrap();
    let worker = "INSERT INTO workers (id, type, name, metadata, secret_hash, enabled) VALUES (?1, 'pdf', ?2, ?3, ?4, ?5)";
    let metadata = br#"{"gpu": true}"#;
    connection.execute(worker, params!["w1", "first", metadata, sha256("bfw_one"), true]).unwrap();
    connection.execute(worker, params!["w2", None::<&str>, None::<&[u8]>, sha256("bfw_two"), false]).unwrap();
    let token =
        "INSERT INTO api_tokens (name, token_hash, is_admin, scopes, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    connection.execute(token, params!["root", sha256("bf_root"), true, None::<&str>, None::<&str>]).unwrap();
    let later = "2999-01-01 00:00:00+00:00";
    connection.execute(token, params!["reader", sha256("bf_reader"), false, br#"["read"]"#, later]).unwrap();
    connection
        .execute(token, params!["old", sha256("bf_old"), false, None::<&str>, "2020-01-01 00:00:00+00:00"])
        .unwrap();
    path
}

fn import(database: &TestDatabase, folder: &Path, file: &Path, arguments: &[&str]) -> Ran {
    let urls = database.urls();
    let mut command = quipu(folder);
    command.env("DATABASE_URL", urls.write.expose());
    command.env("QUIPU_SESSION_DATABASE_URL", urls.session.expose());
    command.args(["jobs", "import"]).arg(file).args(arguments);
    run(&mut command, folder)
}

async fn job(room: &Room, number: &str) -> Value {
    let headers = [("authorization", "Bearer bf_root")];
    http(room.address, "GET", &format!("/api/jobs/{number}"), &headers, None).await.1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobforge_moves_in_and_a_second_import_changes_nothing() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.compat_unauthenticated = Some(false)).await;
    let folder = tempfile::tempdir().unwrap();
    let file = fixture(folder.path());

    let tried = import(&database, folder.path(), &file, &["--dry-run", "--json", "--with-administrators"]);
    assert_eq!(tried.status.code(), Some(1), "{tried:?}");
    let totals = tried.json_lines().pop().unwrap();
    assert_eq!(totals["jobs"], json!({ "imported": 6, "known": 0, "refused": 2 }), "{totals}");
    assert_eq!(super::kit::number(&database, "SELECT count(*) FROM jobs").await, 0);

    // As an import leaves a worker that ends before it stores the secret.
    let begun = "INSERT INTO job_worker_log (worker, step, kind, status, is_enabled, type, actor)
         VALUES ('w2', 1, 'created', 'offline', true, 'pdf', 'import')";
    database.owner().await.batch_execute(begun).await.unwrap();
    let first = import(&database, folder.path(), &file, &["--json", "--with-administrators"]);
    assert_eq!(first.status.code(), Some(1), "{first:?}");
    let mut lines = first.json_lines();
    let totals = lines.pop().unwrap();
    assert_eq!(totals["jobs"], json!({ "imported": 6, "known": 0, "refused": 2 }), "{totals}");
    assert_eq!(totals["workers"], json!({ "imported": 2, "known": 0, "refused": 0 }));
    assert_eq!(totals["tokens"], json!({ "imported": 2, "known": 0, "refused": 0 }));
    assert_eq!((&totals["files"], &totals["expired_tokens"]), (&json!(2), &json!(1)));
    let refused: Vec<&Value> = lines.iter().map(|line| &line["refused"]).collect();
    assert_eq!((&refused[0]["table"], &refused[0]["id"]), (&json!("jobs"), &json!("7")));
    assert!(refused[0]["reason"].as_str().unwrap().starts_with("tags: is not JSON"), "{refused:?}");
    assert_eq!(
        (&refused[1]["id"], &refused[1]["reason"]),
        (&json!("8"), &json!("status: `lost` is unknown"))
    );

    // The journals say what was there, and the jobs go on from it.
    let done = job(&room, "1").await;
    for (member, expected) in [
        ("status", json!("completed")),
        ("source_hash", json!("hash1")),
        ("attempts", json!(2)),
        ("worker_id", json!("old-worker")),
        ("result", json!({ "pages": 9 })),
        ("last_error", json!("first try")),
        ("tags", json!(["books"])),
        ("created_at", json!("2025-01-02T03:04:05Z")),
        ("started_at", json!("2025-01-02T04:00:00Z")),
        ("completed_at", json!("2025-01-02T05:00:00Z")),
    ] {
        assert_eq!(done[member], expected, "{member}: {done}");
    }
    let history = job(&room, "1/history").await;
    let entry = &history["history"][1];
    assert_eq!((&entry["event"], &entry["actor"]), (&json!("imported"), &json!("import")), "{history}");
    assert_eq!(entry["detail"]["files"][1]["key"], "outputs/hash1");
    let imported: Vec<(String, i64)> = {
        let mut found = Vec::new();
        for number in 1..=6 {
            let job = job(&room, &number.to_string()).await;
            found.push((job["status"].as_str().unwrap().to_owned(), job["attempts"].as_i64().unwrap()));
        }
        found
    };
    let expected =
        [("completed", 2), ("pending", 0), ("pending", 0), ("dead", 3), ("cancelled", 0), ("pending", 1)];
    assert_eq!(imported, expected.map(|(status, attempts)| (status.to_owned(), attempts)));

    // Tokens and secrets are good; what they may do is what they might.
    let status =
        async |path: &str, headers: &[(&str, &str)]| http(room.address, "GET", path, headers, None).await.0;
    let bearer = |token| [("authorization", token)];
    assert_eq!(status("/api/tokens", &bearer("Bearer bf_root")).await, 200);
    assert_eq!(status("/api/stats", &bearer("Bearer bf_reader")).await, 200);
    assert_eq!(status("/api/tokens", &bearer("Bearer bf_reader")).await, 403);
    assert_eq!(status("/api/stats", &bearer("Bearer bf_old")).await, 401);
    let claim = async |worker: &str, secret: &str| {
        let headers = [("x-worker-id", worker), ("x-worker-secret", secret)];
        let body = json!({ "worker_id": worker, "job_type": "pdf", "wait_s": 5 });
        http(room.address, "POST", "/api/jobs/claim", &headers, Some(&body)).await
    };
    assert_eq!(claim("w2", "bfw_two").await.0, 401);
    // The service finds the jobs without being told, in the order of priority and age.
    let mut claimed = Vec::new();
    for _ in 0..3 {
        claimed.push(claim("w1", "bfw_one").await.1["job"]["source_hash"].clone());
    }
    assert_eq!(claimed, ["hash2", "hash6", "hash3"]);

    let second = import(&database, folder.path(), &file, &["--json", "--with-administrators"]);
    let totals = second.json_lines().pop().unwrap();
    assert_eq!(totals["jobs"], json!({ "imported": 0, "known": 6, "refused": 2 }), "{totals}");
    assert_eq!(totals["workers"], json!({ "imported": 0, "known": 2, "refused": 0 }));
    assert_eq!(totals["tokens"], json!({ "imported": 0, "known": 2, "refused": 0 }));
    assert_eq!(super::kit::number(&database, "SELECT count(*) FROM jobs").await, 6);
    assert_eq!(super::kit::number(&database, "SELECT count(*) FROM job_credentials").await, 4);

    // A client that submits the same file again is told so.
    assert!(unique_key("pdf", Some("hash1"), None).is_some());
    let body = json!({ "type": "pdf", "source_hash": "hash1" });
    let again = http(room.address, "POST", "/api/jobs", &bearer("Bearer bf_root"), Some(&body)).await;
    assert_eq!(again, (200, json!({ "job_id": 1, "existing": true, "status": "completed" })));
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_made_file_brings_no_administrator_no_second_secret_and_stops_at_no_row() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.compat_unauthenticated = Some(false)).await;
    let admin = format!("Bearer {}", room.token("admin", true, &[]).await);
    let create = json!({ "id": "known", "type": "pdf" });
    let headers = [("authorization", admin.as_str())];
    let made = http(room.address, "POST", "/api/admin/workers", &headers, Some(&create)).await;
    assert_eq!(made.0, 201, "{made:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("made.db");
    let connection = Connection::open(&file).unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    let worker = "INSERT INTO workers (id, type, secret_hash) VALUES (?1, ?2, ?3)";
    for (id, secret) in [("known", "bfw_stolen"), ("quipu.webhook", "bfw_webhook"), ("new", "bfw_new")] {
        connection.execute(worker, params![id, "pdf", sha256(secret)]).unwrap();
    }
    let token = "INSERT INTO api_tokens (name, token_hash, is_admin, expires_at) VALUES (?1, ?2, ?3, ?4)";
    connection.execute(token, params!["root", sha256("bf_root"), true, None::<&str>]).unwrap();
    connection.execute(token, params!["late", sha256("bf_late"), false, "+99999-01-01 00:00:00"]).unwrap();
    let job = "INSERT INTO jobs (type, source_hash, created_at, metadata) VALUES ('pdf', ?1, ?2, ?3)";
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let long_ago = -8_334_601_228_800_i64;
    connection.execute(job, params!["far", long_ago, None::<&str>]).unwrap();
    connection.execute(job, params!["deep", 1_700_000_000_i64, deep]).unwrap();
    connection.execute(job, params!["good", 1_700_000_000_i64, None::<&str>]).unwrap();
    connection
        .execute_batch(
            "WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < 1000)
             INSERT INTO files (job_id, type, s3_key) SELECT 3, 'output', 'outputs/' || n FROM n",
        )
        .unwrap();
    drop(connection);

    let ran = import(&database, folder.path(), &file, &["--json"]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    let mut lines = ran.json_lines();
    let totals = lines.pop().unwrap();
    let named: Vec<_> =
        lines.iter().map(|line| format!("{} {}", line["refused"]["table"], line["refused"]["id"])).collect();
    let expected = ["workers quipu.webhook", "api_tokens 1", "api_tokens 2", "jobs 1", "jobs 2"];
    assert_eq!(named.iter().map(|name| name.replace('"', "")).collect::<Vec<_>>(), expected, "{lines:?}");
    assert_eq!(totals["jobs"], json!({ "imported": 1, "known": 0, "refused": 2 }), "{totals}");
    assert_eq!(totals["workers"], json!({ "imported": 1, "known": 1, "refused": 1 }), "{totals}");
    assert_eq!(totals["files"], 64, "{totals}");

    let foreign = [("authorization", "Bearer bf_root")];
    assert_eq!(http(room.address, "GET", "/api/tokens", &foreign, None).await.0, 401);
    for (worker, secret, expected) in [("known", "bfw_stolen", 401), ("new", "bfw_new", 200)] {
        let headers = [("x-worker-id", worker), ("x-worker-secret", secret)];
        let body = json!({ "worker_id": worker, "job_type": "none" });
        let told = http(room.address, "POST", "/api/jobs/claim", &headers, Some(&body)).await;
        assert_eq!(told.0, expected, "{worker}: {told:?}");
    }

    // A query of a view may never end.
    let view = folder.path().join("view.db");
    let connection = Connection::open(&view).unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    connection
        .execute_batch(
            "DROP TABLE jobs;
             CREATE VIEW jobs AS
                 WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n)
                 SELECT n AS id, 'pdf' AS type, 'pending' AS status, 'h' AS source_hash FROM n",
        )
        .unwrap();
    drop(connection);
    let refusal = import(&database, folder.path(), &view, &[]).refusal();
    assert!(refusal.contains("is a view or virtual"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_version_is_read_and_what_is_no_database_of_blobforge_is_refused() {
    let database = TestDatabase::new().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let old = Connection::open(at("old.db")).unwrap();
    old.execute_batch(
        "CREATE TABLE workers (id TEXT PRIMARY KEY, type TEXT NOT NULL, metadata JSON);
         CREATE TABLE jobs (
             id INTEGER PRIMARY KEY, type TEXT NOT NULL, status TEXT NOT NULL, priority INTEGER, source_hash TEXT NOT NULL,
             source_path TEXT, source_size INTEGER, worker_id TEXT, started_at DATETIME, completed_at DATETIME, attempts INTEGER,
             max_attempts INTEGER, last_error TEXT, tags JSON, metadata JSON, result JSON, created_at DATETIME);
         CREATE TABLE files (id INTEGER PRIMARY KEY, job_id INTEGER, type TEXT, s3_key TEXT, size INTEGER, content_type TEXT, checksum TEXT);
         INSERT INTO workers VALUES ('w', 'pdf', NULL);
         WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < 2500)
         INSERT INTO jobs SELECT n, 'pdf', 'pending', 3, 'h' || n, NULL, NULL, NULL, NULL, NULL, 0, 3, NULL, NULL, NULL, NULL, '2025-01-01' || ' 00:00:00' FROM n;
         PRAGMA user_version = 1",
    )
    .unwrap();
    let ran = import(&database, folder.path(), &at("old.db"), &["--json"]).ok();
    let totals = ran.json_lines().pop().unwrap();
    assert_eq!(totals["jobs"], json!({ "imported": 2500, "known": 0, "refused": 0 }), "{totals}");
    let distinct = "SELECT count(DISTINCT ready_at) FROM job_ready WHERE type = 'pdf'";
    assert_eq!(super::kit::number(&database, distinct).await, 2_500);
    assert_eq!(problems(&database).await, Vec::<String>::new());

    std::fs::write(at("text"), "no database\n".repeat(100)).unwrap();
    Connection::open(at("other.db")).unwrap().execute_batch("CREATE TABLE jobs (id INTEGER)").unwrap();
    Connection::open(at("new.db")).unwrap().execute_batch("PRAGMA user_version = 7").unwrap();
    for (name, said) in [
        ("text", "cannot read"),
        ("missing", "cannot read"),
        ("other.db", "is not a database of BlobForge"),
        ("new.db", "version 7"),
    ] {
        let refusal = import(&database, folder.path(), &at(name), &[]).refusal();
        assert!(refusal.contains(said), "{name}: {refusal}");
    }
}
