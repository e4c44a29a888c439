//! The standard `process_…` metrics, read from Linux' `/proc` at each scrape. Other systems have none of
//! them.

use std::fmt;
use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::catalogue::describe_metrics;

describe_metrics! { Process;
    RESIDENT: Gauge = "process_resident_memory_bytes" [], "Resident memory size in bytes";
    DESCRIPTORS: Gauge = "process_open_fds" [], "Number of open file descriptors";
    DESCRIPTORS_MAX: Gauge = "process_max_fds" [], "Maximum number of open file descriptors";
    STARTED: Gauge = "process_start_time_seconds" [],
        "Start time of the process since the Unix epoch in seconds";
    CPU: Counter = "process_cpu_seconds_total" [], "Total user and system CPU time spent in seconds";
}

/// Clock ticks per second in `/proc`, the kernel's `USER_HZ`: 100 on all architectures that Debian supports.
const TICKS_PER_S: f64 = 100.0;

/// Collector for this process.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let read = |path| fs::read_to_string(path).ok();
        let stat = read("/proc/self/stat");
        let boot = read("/proc/stat");
        if let Some(bytes) = read("/proc/self/status").and_then(|status| resident_bytes(&status)) {
            RESIDENT.encode(&mut encoder, &ConstGauge::new(bytes))?;
        }
        let open = fs::read_dir("/proc/self/fd").ok().and_then(|fds| i64::try_from(fds.count()).ok());
        if let Some(count) = open {
            DESCRIPTORS.encode(&mut encoder, &ConstGauge::new(count))?;
        }
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            DESCRIPTORS_MAX
                .encode(&mut encoder, &ConstGauge::new(i64::try_from(soft).unwrap_or(i64::MAX)))?;
        }
        if let Some(started_s) = stat.as_deref().zip(boot.as_deref()).and_then(|(s, b)| start_time_s(s, b)) {
            STARTED.encode(&mut encoder, &ConstGauge::new(started_s))?;
        }
        if let Some(cpu_s) = stat.as_deref().and_then(cpu_s) {
            CPU.encode(&mut encoder, &ConstCounter::new(cpu_s))?;
        }
        Ok(())
    }
}

/// Resident memory of this process, bytes; `None` where there is no `/proc`.
#[must_use]
pub fn resident_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    resident_bytes(&status).and_then(|bytes| u64::try_from(bytes).ok())
}

fn resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok().map(|kib| kib * 1024)
}

/// Field of `/proc/self/stat` by its number in proc(5). The second field, the command, may contain spaces and
/// brackets; it ends at the last bracket.
fn field(stat: &str, number: usize) -> Option<f64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_s(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS_PER_S)
}

fn start_time_s(stat: &str, boot: &str) -> Option<f64> {
    let booted_s: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted_s + field(stat, 22)? / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (a b) c) S 1 7 7 0 -1 4194560 9 8 7 6 150 50 0 0 20 0 4 0 12345 99 88 77";

    #[test]
    fn a_command_with_brackets_does_not_shift_the_fields() {
        assert_eq!(cpu_s(STAT), Some(2.0));
        assert_eq!(start_time_s(STAT, "cpu 1 2\nbtime 1000\n"), Some(1123.45));
    }

    #[test]
    fn resident_memory_is_given_in_bytes() {
        assert_eq!(resident_bytes("VmPeak:  9 kB\nVmRSS:\t    12 kB\n"), Some(12_288));
        assert_eq!(resident_bytes("VmPeak:  9 kB\n"), None);
    }
}
