//! `quipu jobs retry`, `cancel` and `priority`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::client::Server;
use super::show::outcome;
use crate::cli::output;
use crate::telemetry::notice;

/// The jobs to change.
#[derive(Debug, Args)]
struct Named {
    /// Numbers of jobs.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
    /// A reason, for the history of the job.
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Print one JSON object for each job.
    #[arg(long)]
    json: bool,
}

impl Named {
    /// Sends one request for each job. A refused one does not keep the others from being changed.
    async fn change(self, server: &Server, verb: &str, body: Value) -> Result<ExitCode> {
        let mut body = body;
        if let Some(why) = self.why {
            body["why"] = why.into();
        }
        let mut code = ExitCode::SUCCESS;
        for id in self.ids {
            match server.post(&["api", "jobs", &id.to_string(), verb], &body).await {
                Ok(answer) => {
                    let status = answer["status"].as_str().unwrap_or("changed");
                    if self.json {
                        output::list(outcome(id, status))?;
                    } else {
                        output::list(format_args!("{id}  {}", output::one_line(status, 40)))?;
                    }
                }
                Err(trouble) if trouble.refusal().is_some_and(|(status, _)| matches!(status, 404 | 409)) => {
                    notice(format_args!("quipu: job {id}: {trouble}"));
                    code = ExitCode::FAILURE;
                }
                Err(trouble) => return Err(trouble.into()),
            }
        }
        Ok(code)
    }
}

/// Make jobs pending again.
#[derive(Debug, Args)]
pub(super) struct Retry {
    #[command(flatten)]
    named: Named,
    /// Forget the attempts that failed.
    #[arg(long)]
    reset_attempts: bool,
    /// Another priority, 1 (first) to 5 (last).
    #[arg(long, short, value_name = "N", value_parser = super::priority())]
    priority: Option<i16>,
}

impl Retry {
    pub(super) async fn run(self, server: &Server) -> Result<ExitCode> {
        let mut body = json!({ "reset_attempts": self.reset_attempts });
        if let Some(priority) = self.priority {
            body["priority"] = priority.into();
        }
        self.named.change(server, "retry", body).await
    }
}

/// Cancel jobs.
#[derive(Debug, Args)]
pub(super) struct Cancel {
    #[command(flatten)]
    named: Named,
}

impl Cancel {
    pub(super) async fn run(self, server: &Server) -> Result<ExitCode> {
        self.named.change(server, "cancel", json!({})).await
    }
}

/// Change the priority of jobs.
#[derive(Debug, Args)]
pub(super) struct Priority {
    /// 1 (first) to 5 (last).
    #[arg(value_name = "PRIORITY", value_parser = super::priority())]
    priority: i16,
    #[command(flatten)]
    named: Named,
}

impl Priority {
    pub(super) async fn run(self, server: &Server) -> Result<ExitCode> {
        self.named.change(server, "priority", json!({ "priority": self.priority })).await
    }
}
