//! The memory of an import does not grow with its file.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

use super::kit::Sample;
use crate::support::instance::{Instance, await_some};
use crate::support::rounds::rounds;

/// The import for which the limit holds, in events.
const EVENTS: u64 = 200_000;

/// Limit on the memory of that import, in KiB.
const RSS_KIB_MAX: u64 = 200 * 1_024;

/// Peak memory of a running process (`VmHWM`), in KiB.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// Imports a file in a process of its own; returns the peak of its memory, in KiB.
fn peak_of_import(instance: &Instance, file: &Path) -> u64 {
    let mut command = instance.command(&["import"]);
    let mut child = command.arg(file).stdout(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    let status = await_some("the import's end", || {
        peak = peak_kib(child.id()).unwrap_or(0).max(peak);
        child.try_wait().unwrap()
    });
    assert!(status.success());
    peak
}

/// Writes the first quarter of the lines of `file`, and the others, to files of their own.
fn quarter_and_rest(file: &Path, lines: u64, folder: &Path) -> [std::path::PathBuf; 2] {
    let paths = ["quarter.jsonl", "rest.jsonl"].map(|name| folder.join(name));
    let mut files = paths.each_ref().map(|path| File::create(path).unwrap());
    let all = BufReader::new(File::open(file).unwrap()).lines();
    for (line, number) in all.zip(0..) {
        let file = &mut files[usize::from(number >= lines / 4)];
        writeln!(file, "{}", line.unwrap()).unwrap();
    }
    paths
}

/// Imports a quarter of a file and then the rest, which is at least [`EVENTS`] events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_of_200_000_events_stays_under_200_mb() {
    let lines = (EVENTS * 4 / 3 + 4) * rounds();
    let sample = Sample::of(usize::try_from(lines).unwrap());
    let instance = Instance::start(&[]);
    let parts = quarter_and_rest(&sample.path(), lines, instance.folder());
    let [few, many] = [lines / 4, lines - lines / 4];
    let [small, large] = parts.each_ref().map(|part| peak_of_import(&instance, part));
    let peak = large + large.saturating_sub(small) * EVENTS.saturating_sub(many) / (many - few);
    println!(
        "{} MiB for {few} events, {} for {many}, so {} for {EVENTS}",
        small / 1_024,
        large / 1_024,
        peak / 1_024
    );
    assert!(small > 1_024 && peak < RSS_KIB_MAX, "{small} KiB, {large} KiB, {peak} KiB");
    assert_eq!(u64::try_from(instance.count("SELECT count(*) FROM events").await).unwrap(), lines);
    instance.stop();
}
