//! `quipu jobs watch`: the server's events as they happen. After an interruption it goes on where it was.

use std::collections::BTreeSet;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use backon::{BackoffBuilder, ExponentialBuilder};
use clap::Args;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use sse_stream::{Sse, SseByteStream};

use super::client::{ANSWER_WITHIN, Server, Trouble};
use super::show::text;
use crate::base::Secret;
use crate::cli::output;
use crate::lifecycle::stop_signals;
use crate::net::{Content, Verb};
use crate::telemetry::notice;

/// A stream without a frame for this long is dead: the server sends one every 25 s.
const SILENT_MAX: Duration = Duration::from_mins(1);

/// Follow jobs.
#[derive(Debug, Args)]
pub(super) struct Watch {
    /// Only these jobs; ends when all of them have ended. The exit code is 1 if one is dead or cancelled.
    #[arg(value_name = "ID")]
    jobs: Vec<i64>,
    /// Print one JSON object for each event.
    #[arg(long)]
    json: bool,
}

/// Why a stream ended.
enum Ended {
    /// All named jobs have ended.
    Done,
    /// The connection broke off, or the server ended the stream.
    Broken(Option<Trouble>),
    /// What was printed was not taken.
    Output(anyhow::Error),
}

impl From<Trouble> for Ended {
    fn from(trouble: Trouble) -> Self {
        Self::Broken(Some(trouble))
    }
}

/// What has to be known across connections.
#[derive(Debug, Default)]
struct Followed {
    last_id: Option<String>,
    /// Named jobs that have not ended.
    open: BTreeSet<i64>,
    /// Whether a named job is dead or cancelled.
    has_failed: bool,
}

impl Watch {
    pub(super) async fn run(self, server: &Server) -> Result<ExitCode> {
        let mut stop = pin!(stop_signals()?);
        let mut followed = Followed { open: self.jobs.iter().copied().collect(), ..Followed::default() };
        let backoff = || {
            ExponentialBuilder::default()
                .with_jitter()
                .with_min_delay(Duration::from_millis(250))
                .with_max_delay(Duration::from_secs(15))
                .without_max_times()
                .build()
        };
        let mut pauses = backoff();
        loop {
            let before = followed.last_id.clone();
            let ended = tokio::select! {
                ended = self.listen(server, &mut followed) => ended,
                _ = stop.next() => return Ok(ExitCode::SUCCESS),
            };
            let trouble = match ended {
                Ended::Done if followed.has_failed => return Ok(ExitCode::FAILURE),
                Ended::Done => return Ok(ExitCode::SUCCESS),
                Ended::Output(error) => return Err(error),
                Ended::Broken(Some(trouble)) if !trouble.is_transient() => return Err(trouble.into()),
                Ended::Broken(trouble) => trouble,
            };
            if followed.last_id != before {
                pauses = backoff();
            }
            let pause = pauses.next().unwrap_or(Duration::from_secs(15));
            let why = trouble.map_or_else(|| "the stream ended".to_owned(), |trouble| trouble.to_string());
            notice(format_args!("quipu: {why}; connecting again in {:.1} s", pause.as_secs_f64()));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.next() => return Ok(ExitCode::SUCCESS),
            }
        }
    }

    /// Prints events until the stream ends.
    async fn listen(&self, server: &Server, followed: &mut Followed) -> Ended {
        match self.listen_once(server, followed).await {
            Ok(ended) | Err(ended) => ended,
        }
    }

    async fn listen_once(&self, server: &Server, followed: &mut Followed) -> Result<Ended, Ended> {
        let url = server.at(&["events"]);
        let mut headers = vec![("accept", Secret::new("text/event-stream"))];
        headers.extend(followed.last_id.clone().map(|id| ("last-event-id", Secret::new(id))));
        let opened = server.open(Verb::Get, &url, Content::None, &headers, ANSWER_WITHIN).await;
        let reply = match opened {
            // The id is of another database, or of before a restore.
            Err(trouble) if trouble.refusal().is_some_and(|(status, _)| status == 400) => {
                if followed.last_id.take().is_none() {
                    return Err(trouble.into());
                }
                return Err(Ended::Broken(None));
            }
            other => other?,
        };
        let chunks = pin!(reply.chunks(SILENT_MAX));
        let mut events = SseByteStream::new(chunks);
        while let Some(event) = events.next().await {
            let Ok(Sse { event, data, id, .. }) = event else { break };
            if let Some(id) = id {
                followed.last_id = Some(id);
            }
            let (Some(name), Some(data)) = (event, data) else { continue };
            match name.as_str() {
                "ping" if data == "connected" || followed.last_id.is_none() => {
                    self.look(server, followed).await?;
                }
                "ping" => {}
                "failure" => break,
                name => {
                    let frame: Value = serde_json::from_str(&data).unwrap_or_default();
                    if name == "reset" {
                        notice("quipu: events were missed; `quipu jobs list` shows the present state");
                        self.look(server, followed).await?;
                    } else {
                        self.show(name, &frame["data"], followed).map_err(Ended::Output)?;
                    }
                }
            }
            if !self.jobs.is_empty() && followed.open.is_empty() {
                return Ok(Ended::Done);
            }
        }
        Ok(Ended::Broken(None))
    }

    /// Reads the state of the named jobs: they may have ended before the stream began.
    async fn look(&self, server: &Server, followed: &mut Followed) -> Result<(), Ended> {
        for job in followed.open.clone() {
            let state = server.get(server.at(&["api", "jobs", &job.to_string()])).await?;
            followed.saw(job, state["status"].as_str().unwrap_or_default());
        }
        Ok(())
    }

    fn show(&self, name: &str, data: &Value, followed: &mut Followed) -> Result<()> {
        let job = data["job_id"].as_i64();
        let is_named = job.is_some_and(|job| self.jobs.contains(&job));
        if !self.jobs.is_empty() && !is_named {
            return Ok(());
        }
        if self.json {
            output::list(json!({ "event": name, "data": data }))?;
        } else {
            let subject = job.map_or_else(|| text(&data["worker_id"]), |job| format!("job {job}"));
            let told = ["type", "status", "error"].map(|member| text(&data[member])).join(" ");
            output::list(format_args!("{name:<14} {subject:<12} {}", told.trim()))?;
        }
        if let Some(job) = job {
            let status = match name {
                "job_completed" => "completed",
                _ => data["status"].as_str().unwrap_or_default(),
            };
            followed.saw(job, status);
        }
        Ok(())
    }
}

impl Followed {
    fn saw(&mut self, job: i64, status: &str) {
        let has_failed = matches!(status, "dead" | "cancelled");
        if (has_failed || status == "completed") && self.open.remove(&job) {
            self.has_failed |= has_failed;
        }
    }
}
