//! The memory of an import does not grow with its file.

use std::fs;
use std::process::Stdio;

use super::kit::Sample;
use crate::support::instance::{Instance, await_some};

/// Limit on the memory of an import, in KiB.
const RSS_KIB_MAX: u64 = 200 * 1_024;

/// Peak memory of a running process (`VmHWM`), in KiB.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_of_200_000_events_stays_under_200_mb() {
    let sample = Sample::get();
    let instance = Instance::start(&[]);
    let mut command = instance.command(&["import"]);
    let mut child = command.arg(sample.path()).stdout(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    let status = await_some("the import's end", || {
        peak = peak_kib(child.id()).unwrap_or(0).max(peak);
        child.try_wait().unwrap()
    });
    assert!(status.success());
    println!("the import held at most {} MiB", peak / 1_024);
    assert!((1_024..RSS_KIB_MAX).contains(&peak), "{peak} KiB");
    assert_eq!(usize::try_from(instance.count("SELECT count(*) FROM events").await).unwrap(), Sample::EVENTS);
    instance.stop();
}
