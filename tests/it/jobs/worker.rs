//! `quipu worker` as a child process, against the service in the test's process.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use quipu::services::jobs::command::Change;
use quipu::store::owner;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::kit::{Room, fence, number, problems};
use crate::support::database::TestDatabase;
use crate::support::instance::{quipu, signal, wait};
use crate::support::proxy::eventually;

/// A worker. Dropping it kills it, and with it its command.
struct Worker {
    folder: TempDir,
    child: Child,
}

impl Worker {
    /// Starts a worker for jobs of type `pdf`.
    fn start(at: SocketAddr, exec: &str, arguments: &[&str]) -> Self {
        Self::start_with(at, exec, arguments, &[])
    }

    fn start_with(at: SocketAddr, exec: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = quipu(folder.path());
        command.args(["worker", "--type", "pdf", "--json", "--exec", exec, "--folder"]).arg(folder.path());
        command.args(["--server", &format!("http://{at}"), "--wait-s", "5"]).args(arguments);
        command.envs(environment.iter().copied());
        let file = |name: &str| File::create(folder.path().join(name)).unwrap();
        let child = command.stdout(file("out")).stderr(file("err")).spawn().unwrap();
        Self { folder, child }
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// What it said about jobs that have ended.
    fn outcomes(&self) -> Vec<Value> {
        self.text("out").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until it ends by itself. Returns its exit code.
    fn ended(&mut self) -> Option<i32> {
        let status = wait(&mut self.child);
        status.unwrap_or_else(|| panic!("the worker does not end: {}", self.text("err"))).code()
    }

    /// Sends SIGTERM and waits for its end. Returns its exit code and the time that it took.
    fn stop(&mut self) -> (Option<i32>, Duration) {
        let began = Instant::now();
        signal(self.child.id(), Signal::SIGTERM);
        (self.ended(), began.elapsed())
    }

    /// The folders of jobs that are left.
    fn folders(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Submits a job over HTTP. Returns its number.
async fn submit(room: &Room, members: &Value) -> i64 {
    let mut body = json!({ "type": "pdf", "unique": false });
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    room.ok("/api/jobs", &body).await["job_id"].as_i64().unwrap()
}

async fn job(room: &Room, id: i64) -> Value {
    room.get(&format!("/api/jobs/{id}")).await.1
}

async fn until(room: &Room, id: i64, status: &str) -> Value {
    eventually(&format!("job {id} is {status}"), async || job(room, id).await["status"] == status).await;
    job(room, id).await
}

/// The entry of this kind in a job's history.
async fn entry(room: &Room, id: i64, kind: &str) -> Value {
    let history = room.get(&format!("/api/jobs/{id}/history")).await.1;
    let entries = history["history"].as_array().unwrap();
    entries
        .iter()
        .find(|entry| entry["event"] == kind)
        .unwrap_or_else(|| panic!("no {kind}: {history}"))
        .clone()
}

/// A command that writes its process id to a file, and goes on for longer than the test.
fn endless(file: &Path) -> String {
    format!("sh -c 'sleep 600 & echo $$ $! > {0}.new; mv {0}.new {0}; wait'", file.display())
}

/// The process ids in that file, once it is there.
async fn processes(file: &Path) -> Vec<String> {
    eventually("the command runs", async || file.exists()).await;
    fs::read_to_string(file).unwrap().split_whitespace().map(str::to_owned).collect()
}

async fn are_gone(processes: &[String]) {
    // A process that has ended, and that nobody has waited for yet, has no command line.
    let runs = |id: &String| fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|words| !words.is_empty());
    eventually("the processes of the command are gone", async || !processes.iter().any(runs)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_gets_the_job_and_its_output_is_the_result() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let id = submit(&room, &json!({ "metadata": { "pages": 9 } })).await;
    let exec = r#"sh -c 'printf "{\"input\": %s, \"same\": \"%s\", \"id\": \"%s\", \"secret\": \"%s\", \"kept\": \"%s\", \"pwd\": \"%s\"}" "$(cat "$1")" "$2" "$QUIPU_JOB_ID" "$SECRET" "$KEPT" "$HOME" > "$QUIPU_JOB_OUTPUT"' sh {input} {id}"#;
    let variables = [("SECRET", "s"), ("KEPT", "k")];
    let arguments = ["--until-idle", "--keep-env", "KEPT", "--id", "w1"];
    let mut worker = Worker::start_with(room.address, exec, &arguments, &variables);
    assert_eq!(worker.ended(), Some(0), "{}", worker.text("err"));
    let done = job(&room, id).await;
    assert_eq!((&done["status"], &done["worker_id"]), (&json!("completed"), &json!("w1")), "{done}");
    let result = &done["result"];
    assert_eq!(result["input"], json!({ "pages": 9 }));
    assert_eq!((&result["same"], &result["id"]), (&json!(id.to_string()), &json!(id.to_string())));
    assert_eq!((&result["secret"], &result["kept"]), (&json!(""), &json!("k")));
    assert!(result["pwd"].as_str().unwrap().starts_with(worker.folder.path().to_str().unwrap()), "{result}");
    assert_eq!(worker.outcomes()[0]["outcome"], "completed");
    assert_eq!(worker.folders(), Vec::<PathBuf>::new());
    let workers = room.get("/api/workers").await.1;
    assert_eq!((&workers[0]["id"], &workers[0]["status"]), (&json!("w1"), &json!("offline")));
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_carries_the_exit_code_and_the_last_lines() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let id = submit(&room, &json!({})).await;
    let exec = "sh -c 'echo begun; echo warning >&2; echo no space left >&2; exit 3'";
    let mut worker = Worker::start(room.address, exec, &["--until-idle"]);
    assert_eq!(worker.ended(), Some(0), "{}", worker.text("err"));
    let failed = job(&room, id).await;
    assert_eq!(failed["last_error"], "exit code 3: no space left", "{failed}");
    let context = &entry(&room, id, "failed").await["detail"]["context"];
    assert_eq!((&context["exit_code"], &context["stdout"]), (&json!(3), &json!("begun")));
    assert_eq!(context["stderr"], "warning\nno space left");

    // An output that is no JSON has no place without a file storage.
    let id = submit(&room, &json!({})).await;
    let mut worker = Worker::start(room.address, "cp /etc/hostname {output}", &["--until-idle"]);
    assert_eq!(worker.ended(), Some(0), "{}", worker.text("err"));
    let failed = job(&room, id).await;
    assert!(failed["last_error"].as_str().unwrap().contains("stores no files"), "{failed}");

    let id = submit(&room, &json!({})).await;
    let mut worker = Worker::start(room.address, "/no/such/program", &["--until-idle"]);
    assert_eq!(worker.ended(), Some(0), "{}", worker.text("err"));
    let failed = job(&room, id).await;
    assert!(failed["last_error"].as_str().unwrap().starts_with("exit code 127: "), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_takes_too_long_or_too_much_memory_fails() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let id = submit(&room, &json!({})).await;
    let pids = tempfile::tempdir().unwrap();
    let file = pids.path().join("late");
    // It ignores SIGTERM, so that it has to be killed.
    let exec = format!(
        "sh -c 'trap \"\" TERM; {}'",
        endless(&file).trim_start_matches("sh -c '").trim_end_matches('\'')
    );
    let limits = ["--until-idle", "--timeout", "2s", "--kill-after", "1s"];
    let mut worker = Worker::start(room.address, &exec, &limits);
    let command = processes(&file).await;
    assert_eq!(worker.ended(), Some(0), "{}", worker.text("err"));
    let failed = job(&room, id).await;
    assert_eq!(failed["last_error"], "the command ran longer than 2s", "{failed}");
    assert_eq!(entry(&room, id, "failed").await["detail"]["context"]["timed_out"], true);
    are_gone(&command).await;

    let id = submit(&room, &json!({})).await;
    let limits = ["--until-idle", "--timeout", "60s", "--memory", "300"];
    let mut worker = Worker::start(room.address, "dd if=/dev/zero of=/dev/null bs=1G count=1", &limits);
    assert_eq!(worker.ended(), Some(0), "{}", worker.text("err"));
    let failed = job(&room, id).await;
    assert!(failed["last_error"].as_str().unwrap().contains("memory exhausted"), "{failed}");

    let id = submit(&room, &json!({})).await;
    let limits = ["--until-idle", "--timeout", "60s", "--file-size", "1"];
    let mut worker = Worker::start(room.address, "dd if=/dev/zero of={output} bs=1M count=9", &limits);
    assert_eq!(worker.ended(), Some(0), "{}", worker.text("err"));
    assert_eq!(job(&room, id).await["status"], "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_of_a_cancelled_job_is_ended_and_the_worker_goes_on() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let (one, pids) = (submit(&room, &json!({})).await, tempfile::tempdir().unwrap());
    let file = pids.path().join("pids");
    let worker = Worker::start(room.address, &endless(&file), &["--heartbeat", "1s", "--kill-after", "1s"]);
    let command = processes(&file).await;
    assert_eq!(command.len(), 2);
    assert_eq!(room.post(&format!("/api/jobs/{one}/cancel"), &json!({})).await.0, 200);
    are_gone(&command).await;
    eventually("the worker says so", async || !worker.outcomes().is_empty()).await;
    let outcome = worker.outcomes().remove(0);
    assert_eq!((&outcome["outcome"], &outcome["why"]), (&json!("lost"), &json!("cancelled")), "{outcome}");
    assert_eq!(job(&room, one).await["status"], "cancelled");
    fs::remove_file(&file).unwrap();
    let two = submit(&room, &json!({})).await;
    processes(&file).await;
    assert_eq!(job(&room, two).await["status"], "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_gets_the_number_of_the_lease() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let id = submit(&room, &json!({})).await;
    let claimed = room.claim("other", 1, 60).await.remove(0);
    // A lease that was given back counts here, though not as a failed attempt.
    let release = Change::Release { fence: fence(&claimed, "other"), why: None };
    room.change(id, release).await.unwrap();
    let exec = "sh -c 'printf \"[%s, %s]\" {attempt} $QUIPU_JOB_ATTEMPT > {output}'";
    let mut worker = Worker::start(room.address, exec, &["--until-idle"]);
    assert_eq!(worker.ended(), Some(0), "{}", worker.text("err"));
    assert_eq!(job(&room, id).await["result"], json!([2, 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_stopped_gives_its_job_back_and_a_killed_one_leaves_no_process() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let (id, pids) = (submit(&room, &json!({})).await, tempfile::tempdir().unwrap());
    let file = pids.path().join("pids");
    let mut worker = Worker::start(room.address, &endless(&file), &["--kill-after", "2s"]);
    let command = processes(&file).await;
    let (code, took) = worker.stop();
    assert_eq!(code, Some(0), "{}", worker.text("err"));
    assert!(took < Duration::from_secs(12), "{took:?}");
    are_gone(&command).await;
    let back = job(&room, id).await;
    assert_eq!((&back["status"], &back["attempts"]), (&json!("pending"), &json!(0)), "{back}");
    assert_eq!(entry(&room, id, "released").await["why"], "the worker stops");
    assert_eq!(worker.outcomes()[0]["outcome"], "released");
    assert_eq!(worker.folders(), Vec::<PathBuf>::new());

    // While it waits for a job, too: the claim in progress is settled.
    room.change(id, Change::Cancel { why: None }).await.unwrap();
    let mut idle = Worker::start(room.address, "true", &[]);
    eventually("it waits", async || !room.started.queue.long_polls().is_empty()).await;
    let (code, took) = idle.stop();
    assert!(code == Some(0) && took < Duration::from_secs(8), "{code:?} {took:?} {}", idle.text("err"));
    let later = submit(&room, &json!({})).await;
    assert_eq!(job(&room, later).await["status"], "pending");

    // SIGKILL gives the worker no chance; its command ends all the same, except what has left its process.
    fs::remove_file(&file).unwrap();
    let mut worker = Worker::start(room.address, &endless(&file), &[]);
    let command = processes(&file).await;
    worker.child.kill().unwrap();
    worker.child.wait().unwrap();
    are_gone(&command[..1]).await;
    signal(command[1].parse().unwrap(), Signal::SIGKILL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_survives_a_restart_of_the_server_and_its_job_is_done_once() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let address = room.address;
    let (id, pids) = (submit(&room, &json!({})).await, tempfile::tempdir().unwrap());
    let (begun, go) = (pids.path().join("begun"), pids.path().join("go"));
    let exec = format!(
        "sh -c 'touch {}; while [ ! -e {} ]; do sleep 0.1; done; echo {{}} > {{output}}'",
        begun.display(),
        go.display()
    );
    let worker = Worker::start(address, &exec, &["--heartbeat", "1s"]);
    eventually("the command runs", async || begun.exists()).await;
    drop(room);
    // The command ends while no server answers, so that its report has to wait.
    eventually("the port is free", async || TcpListener::bind(address).is_ok()).await;
    fs::write(&go, "").unwrap();
    eventually("the worker has noticed", async || worker.text("err").contains("trying again")).await;
    let room = Room::with(&database, |settings| settings.address = Some(address)).await;
    let done = until(&room, id, "completed").await;
    assert_eq!((&done["attempts"], &done["result"]), (&json!(1), &json!({})), "{done}");
    // It goes on with the next one.
    let next = submit(&room, &json!({})).await;
    until(&room, next, "completed").await;
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_share_the_jobs_and_one_that_is_drained_ends() {
    const JOBS: usize = 12;
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut ids = Vec::new();
    for number in 0..JOBS {
        ids.push(submit(&room, &json!({ "metadata": { "number": number } })).await);
    }
    let exec = "sh -c 'sleep 0.3; cp {input} {output}'";
    let mut one = Worker::start(room.address, exec, &["--id", "one", "--concurrency", "2"]);
    let two = Worker::start(room.address, exec, &["--id", "two", "--concurrency", "2"]);
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(until(&room, *id, "completed").await["result"], json!({ "number": number }));
    }
    let by = |worker: &Worker| worker.outcomes().len();
    eventually("both have said so", async || by(&one) + by(&two) == JOBS).await;
    assert!(by(&one) > 0 && by(&two) > 0, "{} {}", by(&one), by(&two));
    assert_eq!(room.post("/api/workers/one/drain", &json!({})).await.0, 200);
    assert_eq!(one.ended(), Some(0), "{}", one.text("err"));
    assert!(one.text("err").contains("draining"), "{}", one.text("err"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_recorded_and_a_worker_needs_its_own_secret() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.compat_unauthenticated = Some(false)).await;
    let token = room.token("root", true, &[]).await;
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str())];
    let ask = async |method: &str, path: &str, body: Option<&Value>| {
        super::kit::http(room.address, method, path, &headers, body).await
    };
    let created = ask("POST", "/api/admin/workers", Some(&json!({ "id": "w1", "type": "pdf" }))).await.1;
    let body = json!({ "type": "pdf", "unique": false });
    let id = ask("POST", "/api/jobs", Some(&body)).await.1["job_id"].as_i64().unwrap();
    let path = format!("/api/jobs/{id}");

    let mut stranger = Worker::start(room.address, "true", &["--id", "w1"]);
    assert_eq!(stranger.ended(), Some(1));
    assert!(stranger.text("err").contains("401"), "{}", stranger.text("err"));

    let variables =
        [("BLOBFORGE_WORKER_SECRET", created["secret"].as_str().unwrap()), ("BLOBFORGE_WORKER_ID", "w1")];
    let exec = "sh -c 'echo progress: 10; sleep 1; echo \"progress: {\\\"page\\\": 3}\"; exec sleep 600'";
    let _worker = Worker::start_with(room.address, exec, &["--heartbeat", "1s"], &variables);
    eventually("the progress is recorded", async || {
        ask("GET", &path, None).await.1["progress"] == json!({ "page": 3 })
    })
    .await;
    let job = ask("GET", &path, None).await.1;
    assert_eq!((&job["status"], &job["worker_id"]), (&json!("running"), &json!("w1")), "{job}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_read_is_failed_and_the_worker_goes_on() {
    let database = TestDatabase::new().await;
    // A process remembers what was submitted there.
    let [room, submitter] = [Room::on(&database).await, Room::on(&database).await];
    let unreadable = submit(&submitter, &json!({ "metadata": {}, "priority": 1, "max_attempts": 1 })).await;
    let other = submit(&submitter, &json!({})).await;
    // As a program with a role of its own, or an earlier version, may have stored it.
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let change = format!(
        "ALTER TABLE jobs DISABLE TRIGGER refuse_change; UPDATE jobs SET metadata = '{deep}' WHERE job = {unreadable}"
    );
    let superuser = owner::connect(&database.superuser_url()).await.unwrap();
    superuser.batch_execute(&change).await.unwrap();
    let mut worker = Worker::start(room.address, "true", &["--until-idle"]);
    assert_eq!(worker.ended(), Some(0), "{}", worker.text("err"));
    let outcomes: Vec<_> =
        worker.outcomes().iter().map(|said| (said["job_id"].clone(), said["outcome"].clone())).collect();
    assert_eq!(outcomes, [(json!(unreadable), json!("failed")), (json!(other), json!("completed"))]);
    let dead = "SELECT count(*) FROM job_states WHERE status = 'dead'";
    assert_eq!(number(&database, dead).await, 1);
}
