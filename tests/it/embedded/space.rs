//! A full disk: accepted data is stored, other commands are refused with a reason, and with free space
//! everything resumes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::{signal::Signal, statvfs::statvfs},
    unistd::geteuid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::kit::{eventually, folder, http};
use crate::support::instance::{Instance, Ran, run, signal};

const MIB: u64 = 1024 * 1024;

/// Size of the file system: `initdb` and a first WAL segment need some 60 MiB.
const DISK: &str = "size=320m,mode=0755";

/// The reserve, in MiB.
const RESERVE_MB: u64 = 48;

/// A small file system mounted on a folder; unmounted on drop.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Path) -> Self {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(folder).status();
        assert!(mounted.unwrap().success());
        Self(folder.to_path_buf())
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Fills the disk until `left` bytes are free.
    fn fill(&self, left: u64) {
        let now = statvfs(&self.0).unwrap();
        let free = now.blocks_available() * now.fragment_size();
        let bytes = usize::try_from(free.checked_sub(left).expect("there is more")).unwrap();
        fs::write(self.ballast(), vec![1; bytes]).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        // The instance could not remove the folder while it was mounted.
        let _ = fs::remove_dir(&self.0);
    }
}

/// An instance whose disk the test fills and empties.
struct Try {
    instance: Instance,
    /// A folder on another disk.
    outside: TempDir,
    ops: String,
    messages: String,
    /// Numbers of events and messages that were accepted.
    events: u64,
    sent: u64,
    seed: u64,
}

impl Try {
    fn new(instance: Instance) -> Self {
        let at = |name: &str| instance.ready["services"][name].as_str().unwrap().to_owned();
        let (ops, messages) = (at("ops"), at("messages"));
        Self { instance, outside: folder(), ops, messages, events: 0, sent: 0, seed: 0 }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.instance.command(arguments), self.outside.path())
    }

    /// Imports new events; returns `false` when there is no space.
    fn import(&mut self, count: u64) -> bool {
        self.seed += 1;
        let (seed, count) = (self.seed.to_string(), count.to_string());
        let sample = self.run(&["sample", "--seed", &seed, "--count", &count]).ok();
        let file = self.outside.path().join("events.jsonl");
        fs::write(&file, sample.stdout).unwrap();
        let ran = self.run(&["import", "--json", file.to_str().unwrap()]);
        let parts = ran.json_lines();
        let parts = parts.iter().filter(|part| part.get("total").is_none());
        self.events += parts.map(|part| part["stored"].as_u64().unwrap()).sum::<u64>();
        if ran.status.success() {
            return true;
        }
        let said = ran.refusal();
        assert!(said.contains("no space left: ") && said.contains("database.reserve_mb"), "{said}");
        false
    }

    /// Sends a message; returns `false` when there is no space.
    async fn send(&mut self) -> bool {
        let [from, to] = ["11", "22"].map(|byte| byte.repeat(32));
        let frame = json!({ "type": "send", "to": to, "payload_b64": "SGVsbG8" });
        let path = format!("/v1/messages?wayfarer_id={from}");
        let (status, head, body) = http(&self.messages, "POST", &path, &frame).await;
        if status == 201 {
            self.sent += 1;
            return true;
        }
        assert_eq!(status, 507, "{body}");
        assert!(head.contains("retry-after: ") && body.contains("no_space"), "{head}\n{body}");
        false
    }

    async fn readiness(&self) -> (u16, Value) {
        let (status, _, body) = http(&self.ops, "GET", "/readyz", &Value::Null).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn refuses_and_says_so(&mut self) {
        eventually(async || match self.readiness().await {
            (503, body) if body["services"]["disk"]["state"] == "waiting" => {
                let reason = body["services"]["disk"]["reason"].as_str().unwrap().to_owned();
                assert!(reason.contains("no space left: ") && reason.contains("MiB are free"), "{reason}");
                Ok(())
            }
            other => Err(other),
        })
        .await;
        assert_eq!(http(&self.ops, "GET", "/healthz", &Value::Null).await.0, 200, "a restart would not help");
        assert!(!self.import(10), "nothing is accepted");
        assert!(!self.send().await, "nothing is accepted");
        let metrics = http(&self.ops, "GET", "/metrics", &Value::Null).await.2;
        let refused = "quipu_store_refusals_total{journal=\"message_log\",reason=\"no_space\"} ";
        assert!(metrics.contains(refused), "{metrics}");
        assert!(metrics.contains("quipu_store_space_reserve_bytes "), "{metrics}");
        assert!(self.instance.log().contains("no space left: "), "{}", self.instance.log());
    }

    async fn goes_on_by_itself(&mut self) {
        eventually(async || match self.readiness().await {
            (200, _) => Ok(()),
            other => Err(other),
        })
        .await;
        assert!(self.import(100) && self.send().await);
        for (query, expected) in [
            ("SELECT count(*) FROM events", self.events),
            ("SELECT count(*) FROM message_log WHERE kind = 'accepted'", self.sent),
        ] {
            let owner = quipu::store::owner::connect(&self.instance.url("owner_database_url")).await.unwrap();
            let found: i64 = owner.query_one(query, &[]).await.unwrap().get(0);
            assert_eq!(u64::try_from(found).unwrap(), expected, "{query}");
        }
        self.run(&["verify"]).ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_by_name_and_loses_nothing() {
    if !geteuid().is_root() {
        // Without the right to mount a small disk, use a reserve larger than any disk.
        let mut tried = Try::new(Instance::start(&["--set", "database.reserve_mb=4294967295"]));
        tried.refuses_and_says_so().await;
        signal(tried.instance.pid(), Signal::SIGTERM);
        tried.instance.ended();
        tried.instance.go_with(&["--set", "database.reserve_mb=0"]);
        tried.goes_on_by_itself().await;
        return tried.instance.stop();
    }
    let reserve = format!("database.reserve_mb={RESERVE_MB}");
    let mut instance = Instance::prepared(&["--set", &reserve], &[]);
    let disk = Disk::mount(instance.folder());
    instance.go();
    let postmaster = instance.postmaster_pid();
    let mut tried = Try::new(instance);
    assert!(tried.import(500) && tried.send().await);

    // The writes use up the space above the reserve.
    disk.fill(RESERVE_MB * MIB + 6 * MIB);
    while tried.send().await && tried.import(2_000) {}
    tried.refuses_and_says_so().await;
    assert_eq!(tried.instance.postmaster_pid(), postmaster, "PostgreSQL did not restart");

    fs::remove_file(disk.ballast()).unwrap();
    tried.goes_on_by_itself().await;
    assert_eq!(tried.instance.postmaster_pid(), postmaster, "PostgreSQL did not restart");
    tried.instance.stop();
}
