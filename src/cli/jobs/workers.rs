//! `quipu workers`: what the server knows of workers, and what people do to them.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Server;
use super::server::ServerArgs;
use super::show::{moment, text};
use crate::cli::{Context, output, until_signal};
use crate::telemetry::notice;

/// List, drain and remove workers; create their secrets.
#[derive(Debug, Args)]
pub(in crate::cli) struct Workers {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the workers.
    List {
        /// Print one JSON object for each worker.
        #[arg(long)]
        json: bool,
    },
    /// Let a worker finish its jobs and get no others. `quipu worker` ends then.
    Drain(One),
    /// Give a worker no jobs until it is resumed.
    Suspend(One),
    /// Give a suspended or draining worker jobs again.
    Resume(One),
    /// Remove a worker.
    Remove(One),
    /// Create a worker with a secret, which is printed once. Needs an administrator's token.
    Create {
        /// Its id.
        id: String,
        /// The type of jobs that it works on.
        #[arg(long = "type", short = 'T', default_value = "pdf", value_name = "TYPE")]
        job_type: String,
        /// A name for people.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Replace a worker's secret. Needs an administrator's token.
    Regenerate(One),
    /// Let a disabled worker log in again. Needs an administrator's token.
    Enable(One),
    /// Refuse a worker's secret. Needs an administrator's token.
    Disable(One),
}

#[derive(Debug, Args)]
struct One {
    /// The worker's id.
    id: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Workers {
    pub(in crate::cli) async fn run(self, context: &Context) -> Result<ExitCode> {
        let server = self.server.open(context)?;
        until_signal(self.command.run(&server)).await
    }
}

impl Command {
    async fn run(self, server: &Server) -> Result<ExitCode> {
        match self {
            Self::List { json } => return list(server, json).await,
            Self::Create { id, job_type, name, json } => {
                let mut body = json!({ "id": id, "type": job_type });
                // The server takes no null for a name.
                if let Some(name) = name {
                    body["name"] = name.into();
                }
                let answer = server.post(&["api", "admin", "workers"], &body).await?;
                secret(&answer, json);
            }
            Self::Regenerate(one) => {
                let path = ["api", "admin", "workers", one.id.as_str(), "regenerate"];
                secret(&server.post(&path, &json!({})).await?, one.json);
            }
            Self::Drain(one) => one.change(server, &["api", "workers"], "drain").await?,
            Self::Suspend(one) => one.change(server, &["api", "workers"], "suspend").await?,
            Self::Resume(one) => one.change(server, &["api", "workers"], "resume").await?,
            Self::Enable(one) => one.change(server, &["api", "admin", "workers"], "enable").await?,
            Self::Disable(one) => one.change(server, &["api", "admin", "workers"], "disable").await?,
            Self::Remove(one) => {
                let answer = server.delete(&["api", "workers", &one.id]).await?;
                one.say(&answer);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl One {
    async fn change(&self, server: &Server, below: &[&str], verb: &str) -> Result<()> {
        let path = [below, &[self.id.as_str(), verb]].concat();
        self.say(&server.post(&path, &json!({})).await?);
        Ok(())
    }

    fn say(&self, answer: &Value) {
        if self.json {
            output::say(json!({ "id": self.id, "status": answer["status"] }));
        } else {
            output::say(format_args!("{}  {}", self.id, text(&answer["status"])));
        }
    }
}

fn secret(answer: &Value, json: bool) {
    if json {
        output::say(answer);
        return;
    }
    output::say(text(&answer["secret"]));
    notice("the secret is not shown again; the worker gets it as QUIPU_WORKER_SECRET");
}

async fn list(server: &Server, json: bool) -> Result<ExitCode> {
    let found = server.get(server.at(&["api", "workers"])).await?;
    let workers = found.as_array().map(Vec::as_slice).unwrap_or_default();
    if json {
        for worker in workers {
            output::list(worker)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let rows = workers.iter().map(|worker| {
        let status =
            if worker["enabled"] == json!(false) { "disabled".into() } else { text(&worker["status"]) };
        [
            text(&worker["id"]),
            text(&worker["name"]),
            text(&worker["type"]),
            status,
            text(&worker["current_job_id"]),
            moment(&worker["last_heartbeat"]),
        ]
    });
    output::list(output::table(["id", "name", "type", "status", "job", "heard of"], rows))?;
    Ok(ExitCode::SUCCESS)
}
