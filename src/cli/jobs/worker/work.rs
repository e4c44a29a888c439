//! One place of a worker: claims a job, does it, reports it, and begins anew.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::client::{ANSWER_WITHIN, Trouble};
use super::super::resend::patiently;
use super::super::transfer::{self, Claimed};
use super::super::transfer_error::TransferError;
use super::Shared;
use super::child::{self, Written};
use super::claim::Claim;
use super::lease::{Lease, Lost};
use super::outcome::{Outcome, report_of, stored};
use crate::cli::output;
use crate::telemetry::notice;

/// Pause before a worker that gets no jobs (suspended, disabled) asks again.
const NOT_SERVED_PAUSE: Duration = Duration::from_secs(10);

/// Shortest time between two claims that the server answers at once although it was asked to wait.
const CLAIM_PAUSE: Duration = Duration::from_millis(200);

/// Time for giving jobs back when the worker is asked to stop.
const RELEASE_WITHIN: Duration = Duration::from_secs(5);

/// How much longer than its lease a report is sent again: the server accepts it until the expiry is recorded.
const REPORT_LONGER: Duration = Duration::from_secs(30);

/// A place for one job at a time.
pub(super) struct Place<'a> {
    shared: &'a Shared,
}

impl<'a> Place<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared }
    }

    /// Works until the worker is asked to stop, is drained, or is refused for good.
    pub(super) async fn run(self) -> Result<(), Trouble> {
        let ended = self.work().await;
        if ended.is_err() {
            // The other places end as well: they have the same credential.
            self.shared.stop.cancel();
        }
        ended
    }

    async fn work(&self) -> Result<(), Trouble> {
        let shared = self.shared;
        while !shared.stop.is_cancelled() {
            let id = Uuid::now_v7();
            let asked_at = Instant::now();
            let claim = tokio::select! {
                claim = patiently(|| self.claim(id, self.wait_s())) => claim?,
                () = shared.stop.cancelled() => {
                    self.settle(id).await;
                    return Ok(());
                }
            };
            match claim {
                Claim::Job(answer) => self.work_on(*answer, asked_at).await?,
                Claim::Unreadable(answer) => self.give_up(&answer, asked_at).await,
                Claim::None if shared.until_idle => return Ok(()),
                Claim::None => self.pause(CLAIM_PAUSE.saturating_sub(asked_at.elapsed())).await,
                Claim::NotServed(why) if why == "draining" || why == "other_type" || shared.until_idle => {
                    notice(format_args!("quipu: worker {} gets no jobs: {why}", shared.id));
                    return Ok(());
                }
                Claim::NotServed(why) => {
                    tracing::warn!("worker {} gets no jobs: {why}", shared.id);
                    self.pause(NOT_SERVED_PAUSE).await;
                }
            }
        }
        Ok(())
    }

    fn wait_s(&self) -> u32 {
        if self.shared.until_idle { 0 } else { self.shared.wait_s }
    }

    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.shared.stop.cancelled() => {}
        }
    }

    /// Claims one job. Sent again with the same id, the claim gets the same job.
    async fn claim(&self, id: Uuid, wait_s: u32) -> Result<Claim, Trouble> {
        let shared = self.shared;
        let mut body = json!({
            "worker_id": shared.id, "job_type": shared.job_type, "claim_id": id, "wait_s": wait_s,
        });
        if let Some(lease_s) = shared.lease_s {
            body["lease_s"] = lease_s.into();
        }
        let within = ANSWER_WITHIN + Duration::from_secs(wait_s.into());
        shared.server.post_to_read(&["api", "jobs", "claim"], &body, within, Claim::read).await
    }

    /// Fails a job that cannot be read.
    async fn give_up(&self, answer: &Value, asked_at: Instant) {
        let claimed = self.claimed(answer);
        let why = "the worker cannot read this job: it has too many levels, or a number that is too large";
        let held = self.lease(answer, &claimed, asked_at);
        held.0.report("fail", json!({ "error": why }), REPORT_LONGER).await;
        self.say(claimed.job, "failed", why, asked_at.elapsed());
    }

    /// Ends a claim whose answer was not waited for: what it has leased, or leases now, is given back.
    async fn settle(&self, id: Uuid) {
        let settling = async {
            let asked_at = Instant::now();
            let Ok(Claim::Job(answer) | Claim::Unreadable(answer)) = self.claim(id, 0).await else { return };
            let claimed = self.claimed(&answer);
            self.lease(&answer, &claimed, asked_at).release("the worker stops").await;
        };
        let _ = timeout(RELEASE_WITHIN, settling).await;
    }

    fn claimed(&self, answer: &Value) -> Claimed {
        let string = |value: &Value| value.as_str().map(str::to_owned);
        Claimed {
            job: answer["job"]["id"].as_i64().unwrap_or_default(),
            attempt: answer["attempt"].as_i64().unwrap_or_default(),
            lease_token: string(&answer["lease_token"]).unwrap_or_default(),
            worker: self.shared.id.clone(),
            source_hash: string(&answer["job"]["source_hash"]).unwrap_or_default(),
            source_url: string(&answer["source_url"]),
            upload_url: string(&answer["upload_url"]),
            output_key: string(&answer["output_key"]),
        }
    }

    fn lease<'c>(&'c self, answer: &Value, claimed: &'c Claimed, asked_at: Instant) -> Held<'c> {
        let config = &answer["config"];
        let seconds = |value: &Value| value.as_u64().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let length = seconds(&answer["lease_seconds"]).or_else(|| seconds(&config["lease_seconds"]));
        let length = length.unwrap_or(Duration::from_mins(15));
        let heartbeat = self.shared.heartbeat.or_else(|| seconds(&config["heartbeat_interval"]));
        let heartbeat = heartbeat.map_or(length / 3, |pause| pause.min(length / 3));
        Held(Lease::new(&self.shared.server, claimed, length, heartbeat, asked_at))
    }

    /// Does a job and reports it. Only a refused credential is an error.
    async fn work_on(&self, answer: Value, asked_at: Instant) -> Result<(), Trouble> {
        let claimed = self.claimed(&answer);
        let mut held = self.lease(&answer, &claimed, asked_at);
        tracing::info!("job {} begins", claimed.job);
        let outcome = self.attempt(&answer["job"], &claimed, &mut held).await;
        let mut refused = None;
        let (word, why) = match outcome {
            Outcome::Stopped => {
                held.release("the worker stops").await;
                ("released", "the worker stops".to_owned())
            }
            Outcome::Lost(Lost::Told(code)) => ("lost", code),
            Outcome::Lost(Lost::Over) => {
                ("lost", "the lease is over, and the server does not answer".to_owned())
            }
            Outcome::Lost(Lost::Refused(trouble)) => {
                let why = trouble.to_string();
                refused = Some(trouble);
                ("lost", why)
            }
            done => {
                let (verb, members, word, why) = report_of(done);
                match held.0.report(verb, members, held.0.left() + REPORT_LONGER).await {
                    Some(Ok(_)) => (word, why),
                    Some(Err(trouble)) => {
                        let why = format!("the report is refused: {trouble}");
                        if matches!(trouble.refusal(), Some((401 | 403, _))) {
                            refused = Some(trouble);
                        }
                        ("lost", why)
                    }
                    None => ("lost", "the server did not take the report".to_owned()),
                }
            }
        };
        self.say(claimed.job, word, &why, asked_at.elapsed());
        refused.map_or(Ok(()), Err)
    }

    fn say(&self, job: i64, word: &str, why: &str, took: Duration) {
        let seconds = took.as_secs_f64();
        if self.shared.json {
            output::say(json!({ "job_id": job, "outcome": word, "why": why, "seconds": seconds }));
        } else {
            output::say(
                format_args!("{job}  {word}  {seconds:.1} s  {}", output::one_line(why, 200))
                    .to_string()
                    .trim_end(),
            );
        }
    }

    /// Fetches the source, runs the command, and stores the output, while the lease is kept.
    async fn attempt(&self, job: &Value, claimed: &Claimed, held: &mut Held<'_>) -> Outcome {
        let (written, mut progress) = Written::new();
        let end = self.shared.stop.child_token();
        let mut work = pin!(self.run_command(job, claimed, &written, &end));
        tokio::select! {
            biased;
            outcome = &mut work => outcome,
            lost = held.0.keep(&mut progress) => {
                end.cancel();
                work.await;
                Outcome::Lost(lost)
            }
        }
    }

    /// Ends with [`Outcome::Stopped`] when `end` is cancelled. Dropping it kills the command.
    async fn run_command(
        &self,
        job: &Value,
        claimed: &Claimed,
        written: &Written,
        end: &CancellationToken,
    ) -> Outcome {
        let shared = self.shared;
        let made = match &shared.folder {
            Some(folder) => tempfile::Builder::new().prefix("quipu-job-").tempdir_in(folder),
            None => tempfile::Builder::new().prefix("quipu-job-").tempdir(),
        };
        let folder = match made {
            Ok(folder) => folder,
            Err(error) => return Outcome::NotRun(format!("no folder can be made for the job: {error}")),
        };
        let prepared = tokio::select! {
            prepared = self.prepare(job, claimed, &folder) => prepared,
            () = end.cancelled() => return Outcome::Stopped,
        };
        let (words, variables) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Outcome::NotRun(format!("the source cannot be prepared: {error}")),
        };
        let output = folder.path().join("output");
        let began = Instant::now();
        let (mut child, group) = match child::start(&shared.limits, &words, folder.path(), &variables) {
            Ok(started) => started,
            Err(error) => return Outcome::NotRun(format!("the command cannot be started: {error}")),
        };
        let mut waiting = pin!(child::wait(&mut child, &group, written));
        let is_late = tokio::select! {
            ended = &mut waiting => {
                let outcome = self.ended(ended, claimed, &output, written, began);
                return tokio::select! {
                    outcome = outcome => outcome,
                    () = end.cancelled() => Outcome::Stopped,
                };
            }
            () = sleep(shared.timeout) => true,
            () = end.cancelled() => false,
        };
        group.signal(Signal::SIGTERM);
        if timeout(shared.kill_after, &mut waiting).await.is_err() {
            group.signal(Signal::SIGKILL);
            let _ = waiting.await;
        }
        if !is_late {
            return Outcome::Stopped;
        }
        Outcome::TimedOut {
            after: shared.timeout,
            stdout: written.stdout.text(),
            stderr: written.stderr.text(),
        }
    }

    /// The files of a job, the words of its command and its variables.
    async fn prepare(
        &self,
        job: &Value,
        claimed: &Claimed,
        folder: &TempDir,
    ) -> Result<(Vec<OsString>, BTreeMap<String, OsString>), TransferError> {
        let shared = self.shared;
        let at = |name: &str| folder.path().join(name);
        let metadata = at("metadata.json");
        tokio::fs::create_dir(at("tmp")).await?;
        tokio::fs::write(at("job.json"), job.to_string()).await?;
        tokio::fs::write(&metadata, job["metadata"].to_string()).await?;
        // Some commands choose by the end of the name.
        let source = at(&format!("input{}", ending(job["source_path"].as_str().unwrap_or_default())));
        let input = if transfer::fetch_source(&shared.server, claimed, &source).await? {
            source
        } else {
            metadata.clone()
        };
        let attempt = claimed.attempt.to_string();
        let shown = |path: &Path| path.display().to_string();
        let values = BTreeMap::from([
            ("input", shown(&input)),
            ("output", shown(&at("output"))),
            ("id", claimed.job.to_string()),
            ("type", shared.job_type.clone()),
            ("attempt", attempt.clone()),
        ]);
        let mut variables: BTreeMap<String, OsString> =
            shared.environment.iter().map(|(name, value)| (name.clone(), value.into())).collect();
        for (name, value) in [
            ("HOME", folder.path().into()),
            ("TMPDIR", at("tmp").into()),
            ("QUIPU_JOB_ID", claimed.job.to_string().into()),
            ("QUIPU_JOB_TYPE", shared.job_type.clone().into()),
            ("QUIPU_JOB_ATTEMPT", attempt.into()),
            ("QUIPU_JOB_INPUT", input.into()),
            ("QUIPU_JOB_OUTPUT", at("output").into()),
            ("QUIPU_JOB_FILE", at("job.json").into()),
            ("QUIPU_JOB_METADATA", metadata.into()),
        ] {
            variables.insert(name.to_owned(), value);
        }
        Ok((shared.template.fill(&values), variables))
    }

    /// What became of the job after the command has ended by itself.
    async fn ended(
        &self,
        ended: std::io::Result<ExitStatus>,
        claimed: &Claimed,
        output: &Path,
        written: &Written,
        began: Instant,
    ) -> Outcome {
        let status = match ended {
            Ok(status) => status,
            Err(error) => return Outcome::NotRun(format!("the command cannot be waited for: {error}")),
        };
        if !status.success() {
            let (stdout, stderr) = (written.stdout.text(), written.stderr.text());
            let last = written.stderr.last().or_else(|| written.stdout.last());
            return Outcome::Exited { status, last, stdout, stderr, after: began.elapsed() };
        }
        stored(&self.shared.server, claimed, output).await
    }
}

/// The ending of a path with its dot, if it is short and plain; else nothing.
fn ending(path: &str) -> String {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_plain = extension.len() <= 10 && extension.bytes().all(|letter| letter.is_ascii_alphanumeric());
    if extension.is_empty() || !is_plain {
        String::new()
    } else {
        format!(".{}", extension.to_ascii_lowercase())
    }
}

/// A lease, with what is said at its end.
struct Held<'a>(Lease<'a>);

impl Held<'_> {
    /// Gives the job back. Without an answer its lease expires.
    async fn release(&self, why: &str) {
        if self.0.report("release", json!({ "why": why }), RELEASE_WITHIN).await.is_none() {
            tracing::warn!("the server did not take a job back; it is pending again when its lease expires");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ending;

    #[test]
    fn an_input_keeps_the_plain_ending_of_its_source() {
        assert_eq!(ending("/a/b.PDF"), ".pdf");
        assert_eq!(ending("archive.tar.gz"), ".gz");
        for none in ["", "a", ".hidden", "a.b/c", "x.é", "x.averylongending"] {
            assert_eq!(ending(none), "", "{none}");
        }
    }
}
