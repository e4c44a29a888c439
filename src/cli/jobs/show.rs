//! `quipu jobs list`, `show` and `stats`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::client::Server;
use crate::cli::output;
use crate::services::jobs::event::Status;
use crate::telemetry::notice;

/// Most jobs of one answer of the server.
const PAGE: usize = 100;

/// How far a list may begin from the first job; the server refuses more.
const OFFSET_MAX: usize = 10_000;

/// Characters of a text from elsewhere that a table shows.
const SHOWN: usize = 60;

/// List jobs: by priority, the newest first, or by number.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only jobs of this status.
    #[arg(long, short = 'S', value_parser = Status::WORDS.to_vec())]
    status: Option<String>,
    /// Only jobs of this type.
    #[arg(long = "type", short = 'T', value_name = "TYPE")]
    job_type: Option<String>,
    /// By number, the newest first.
    #[arg(long)]
    newest: bool,
    /// Only jobs with a lower number, by number: the last one of a list begins the next list.
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// Most jobs, up to 10,000.
    #[arg(long, short, default_value_t = 20, value_name = "N")]
    limit: usize,
    /// Print one JSON object for each job.
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) async fn run(self, server: &Server) -> Result<ExitCode> {
        let (mut jobs, mut total) = (Vec::new(), 0);
        let most = self.limit.min(OFFSET_MAX);
        while jobs.len() < most {
            let mut url = server.at(&["api", "jobs"]);
            {
                let mut query = url.query_pairs_mut();
                query.append_pair("limit", &(most - jobs.len()).min(PAGE).to_string());
                query.append_pair("offset", &jobs.len().to_string());
                for (name, value) in [("status", &self.status), ("type", &self.job_type)] {
                    if let Some(value) = value {
                        query.append_pair(name, value);
                    }
                }
                if self.newest {
                    query.append_pair("order", "newest");
                }
                if let Some(before) = self.before {
                    query.append_pair("before", &before.to_string());
                }
            }
            let mut page = server.get(url).await?;
            total = page["total"].as_i64().unwrap_or_default();
            let Value::Array(found) = page["jobs"].take() else { break };
            if found.is_empty() {
                break;
            }
            jobs.extend(found);
        }
        if self.json {
            for job in &jobs {
                output::list(job)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let header = ["id", "type", "status", "priority", "attempts", "worker", "source", "updated"];
        let rows = jobs.iter().map(|job| {
            let attempts = format!("{} of {}", job["attempts"], job["max_attempts"]);
            let source = if job["source_path"].is_null() { &job["source_hash"] } else { &job["source_path"] };
            [
                text(&job["id"]),
                text(&job["type"]),
                text(&job["status"]),
                text(&job["priority"]),
                attempts,
                text(&job["worker_id"]),
                text(source),
                moment(&job["updated_at"]),
            ]
        });
        output::list(output::table(header, rows))?;
        notice(format_args!("{} of {total} jobs", jobs.len()));
        Ok(ExitCode::SUCCESS)
    }
}

/// Show a job.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Its number.
    id: i64,
    /// Print one JSON object: the job, and its entries under `history`.
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(super) async fn run(self, server: &Server) -> Result<ExitCode> {
        let id = self.id.to_string();
        let mut job = server.get(server.at(&["api", "jobs", &id])).await?;
        let mut told = server.get(server.at(&["api", "jobs", &id, "history"])).await?;
        let history = told["history"].take();
        if self.json {
            job["history"] = history;
            output::list(job)?;
            return Ok(ExitCode::SUCCESS);
        }
        if let Value::Object(members) = &job {
            let rows = members.iter().map(|(name, value)| {
                let shown = if name.ends_with("_at") { moment(value) } else { text_of(value, 200) };
                [name.clone(), shown]
            });
            output::list(output::table(["", ""], rows))?;
        }
        let entries = history.as_array().into_iter().flatten();
        let rows = entries.map(|entry| {
            [
                moment(&entry["at"]),
                text(&entry["event"]),
                text(&entry["status"]),
                text(&entry["attempt"]),
                text(&entry["actor"]),
                text(if entry["why"].is_null() { &entry["detail"] } else { &entry["why"] }),
            ]
        });
        output::list("")?;
        output::list(output::table(["at", "event", "status", "attempt", "by", "why"], rows))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Count jobs and workers.
#[derive(Debug, Args)]
pub(super) struct Stats {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Stats {
    pub(super) async fn run(self, server: &Server) -> Result<ExitCode> {
        let stats = server.get(server.at(&["api", "stats"])).await?;
        if self.json {
            output::list(stats)?;
            return Ok(ExitCode::SUCCESS);
        }
        let counts = stats.as_object().into_iter().flatten().filter(|(_, value)| value.is_i64());
        let rows = counts.map(|(name, value)| [name.replace('_', " "), value.to_string()]);
        output::list(output::table(["", "number"], rows))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A value as one short line; nothing for null.
pub(super) fn text(value: &Value) -> String {
    text_of(value, SHOWN)
}

fn text_of(value: &Value, characters: usize) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => output::one_line(text, characters),
        other => output::one_line(&other.to_string(), characters),
    }
}

/// A time of the server, to the second.
pub(super) fn moment(value: &Value) -> String {
    let parsed = value.as_str().and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
    parsed.map_or_else(|| text(value), |time| output::instant(time.timestamp()))
}

/// A job's number with what became of it, as one JSON object.
pub(super) fn outcome(job: i64, status: &str) -> Value {
    json!({ "job_id": job, "status": status })
}
