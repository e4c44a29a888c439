//! How an attempt ended, and what the server is told.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::client::Server;
use super::super::transfer::{self, Claimed};
use super::lease::Lost;
use crate::services::jobs::decide::DETAIL_BYTES_MAX;

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Done, with this result and the key of this object.
    Done { result: Value, output_key: Option<String> },
    /// The command ended with another code than 0.
    Exited { status: ExitStatus, last: Option<String>, stdout: String, stderr: String, after: Duration },
    /// The command took too long.
    TimedOut { after: Duration, stdout: String, stderr: String },
    /// The command did not run, or its output cannot be used.
    NotRun(String),
    /// The lease is lost.
    Lost(Lost),
    /// The worker was asked to stop.
    Stopped,
}

/// Stores the output of a command that succeeded: as an object where the server stores files, else as the
/// result of the job.
pub(super) async fn stored(server: &Server, claimed: &Claimed, output: &Path) -> Outcome {
    let about = match tokio::fs::symlink_metadata(output).await {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Outcome::Done { result: Value::Null, output_key: None };
        }
        Err(error) => return Outcome::NotRun(format!("the output cannot be read: {error}")),
    };
    if !about.is_file() {
        return Outcome::NotRun("the output is not a file".to_owned());
    }
    // A small JSON text is a result, which people and programs see with the job.
    let is_small = usize::try_from(about.len()).is_ok_and(|bytes| bytes <= DETAIL_BYTES_MAX);
    let small = if is_small { tokio::fs::read(output).await.ok() } else { None };
    let result: Option<Value> = small.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(result) = result
        && claimed.source_url.is_none()
    {
        return Outcome::Done { result, output_key: None };
    }
    match transfer::store_output(server, claimed, output).await {
        Ok(Some(key)) => {
            Outcome::Done { result: json!({ "output_size": about.len() }), output_key: Some(key) }
        }
        Ok(None) => Outcome::NotRun(format!(
            "the output has {} bytes; this server stores no files, so it has to be JSON of at most {DETAIL_BYTES_MAX} bytes",
            about.len()
        )),
        Err(error) => Outcome::NotRun(format!("the output cannot be stored: {error}")),
    }
}

/// Verb and members of the report, the word for people, and the reason.
pub(super) fn report_of(outcome: Outcome) -> (&'static str, Value, &'static str, String) {
    let failed = |error: String, context: Value| {
        let members = json!({ "error": error, "context": context });
        ("fail", members, "failed", error)
    };
    match outcome {
        Outcome::Done { result, output_key } => {
            let mut members = json!({ "result": result });
            if let Some(key) = output_key {
                members["output_key"] = key.into();
            }
            ("complete", members, "completed", String::new())
        }
        Outcome::Exited { status, last, stdout, stderr, after } => {
            let ended = match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("ended by signal {signal}"),
                (None, None) => "ended".to_owned(),
            };
            let error = last.map_or_else(|| ended.clone(), |line| format!("{ended}: {line}"));
            let context = json!({
                "exit_code": status.code(), "signal": status.signal(), "seconds": after.as_secs_f64(),
                "stdout": stdout, "stderr": stderr,
            });
            failed(without_nul(&error), without_nul_in(context))
        }
        Outcome::TimedOut { after, stdout, stderr } => {
            let error = format!("the command ran longer than {}", humantime::format_duration(after));
            let context = json!({ "timed_out": true, "seconds": after.as_secs_f64(), "stdout": stdout, "stderr": stderr });
            failed(error, without_nul_in(context))
        }
        Outcome::NotRun(why) => failed(without_nul(&why), Value::Null),
        Outcome::Lost(_) | Outcome::Stopped => ("release", json!({}), "released", String::new()),
    }
}

/// The text with a visible sign in place of NUL, which the server does not store.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{2400}")
}

fn without_nul_in(mut context: Value) -> Value {
    for member in ["stdout", "stderr"] {
        if let Some(text) = context[member].as_str().map(without_nul) {
            context[member] = text.into();
        }
    }
    context
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_the_exit_code_and_the_last_lines() {
        let outcome = Outcome::Exited {
            status: ExitStatus::from_raw(3 << 8),
            last: Some("disk\0full".to_owned()),
            stdout: "a\0".to_owned(),
            stderr: "warning\ndisk full".to_owned(),
            after: Duration::from_secs(2),
        };
        let (verb, members, word, error) = report_of(outcome);
        assert_eq!((verb, word, error.as_str()), ("fail", "failed", "exit code 3: disk\u{2400}full"));
        assert_eq!(members["context"]["exit_code"], 3);
        assert_eq!(members["context"]["stdout"], "a\u{2400}");
        assert_eq!(members["context"]["stderr"], "warning\ndisk full");
    }

    #[test]
    fn a_signal_and_a_timeout_are_told_apart() {
        let (stdout, stderr) = (String::new(), String::new());
        let killed = Outcome::Exited {
            status: ExitStatus::from_raw(9),
            last: None,
            stdout: stdout.clone(),
            stderr: stderr.clone(),
            after: Duration::ZERO,
        };
        let (_, members, _, error) = report_of(killed);
        assert_eq!((error.as_str(), &members["context"]["signal"]), ("ended by signal 9", &json!(9)));
        let late = Outcome::TimedOut { after: Duration::from_secs(90), stdout, stderr };
        let (_, members, _, error) = report_of(late);
        assert!(error.contains("1m 30s") && members["context"]["timed_out"] == true, "{error}");
    }
}
