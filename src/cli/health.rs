//! `quipu health`: one request to a listener, for the health checks of containers and scripts.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::output;
use crate::config::Networks;
use crate::net::{Egress, Get, Trust};

/// Longest answer, in bytes: `/metrics` is the longest page of a listener.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Characters of an answer that a failure shows.
const SHOWN_MAX: usize = 4_000;

/// Ask a listener for its health with one GET request, which follows no redirect.
#[derive(Debug, Args)]
pub(super) struct Health {
    /// URL of the page, such as `http://127.0.0.1:4701/healthz`.
    url: String,
    /// Seconds within which the answer must be complete.
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=600))]
    timeout: u16,
}

impl Health {
    /// # Errors
    /// When there is no answer in time, or its status is not 2xx. The error shows the start of the answer.
    pub(super) async fn run(self) -> Result<ExitCode> {
        let url = &self.url;
        let get = Get {
            url,
            trust: Trust::Named,
            accept: "*/*",
            bytes_max: BYTES_MAX,
            timeout: Duration::from_secs(self.timeout.into()),
            redirects_max: 0,
        };
        let answer = Egress::new(&Networks::default())?.get(get).await.context(url.clone())?;
        if !(200..300).contains(&answer.status) {
            let body = String::from_utf8_lossy(&answer.body);
            let shown: String =
                body.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_MAX).collect();
            bail!("{url}: status {}: {}", answer.status, shown.trim());
        }
        output::say(format_args!("{url}: status {}", answer.status));
        Ok(ExitCode::SUCCESS)
    }
}
