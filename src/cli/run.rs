//! `quipu run`: single services. `quipu run messages` also takes the flags of aethos-relay, and `quipu run blossom`
//! those of Blossom Espelhator, which they replace.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::room::ServiceName;
use crate::telemetry::notice;

/// The services that the flags below belong to.
const MESSAGES: &str = ServiceName::Messages.as_str();
const BLOSSOM: &str = ServiceName::Blossom.as_str();

#[derive(Debug, Clone, Args)]
pub(super) struct Run {
    #[arg(required = true, value_name = "SERVICE", help = format!("Which: {}", ServiceName::list(&ServiceName::ALL)))]
    pub(super) services: Vec<String>,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    blossom: BlossomFlags,
}

/// The flags of Blossom Espelhator, which also takes `-config` with one dash.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Flags of `run blossom`, as Blossom Espelhator has them")]
struct BlossomFlags {
    /// A settings file: its own, or one of Quipu. It comes before the environment and `--set`, which override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log more: the level `debug`.
    #[arg(short, long)]
    verbose: bool,
}

/// The flags of aethos-relay. Each sets one setting of `services.messages`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Flags of `run messages`, as aethos-relay has them")]
struct Flags {
    /// Address for clients [default: 127.0.0.1:8080]; `:8080` means every address of this machine.
    #[arg(long, value_name = "ADDRESS")]
    ws_addr: Option<String>,
    /// Address for health and metrics [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDRESS")]
    http_addr: Option<String>,
    /// Pause between two removals of expired messages: 30s, 1m30s.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    sweep_interval: Option<Duration>,
    /// Longest time until a message expires.
    #[arg(long, value_name = "SECONDS")]
    max_ttl_seconds: Option<u32>,
    /// Log as JSON.
    #[arg(long)]
    log_json: bool,
    /// The name of this relay.
    #[arg(long, value_name = "ID")]
    relay_id: Option<String>,
    /// Origins of web pages that may connect, separated by commas.
    #[arg(long, value_name = "ORIGINS", value_delimiter = ',')]
    allowed_origins: Vec<String>,
    /// Allow web pages of every origin to connect.
    #[arg(long)]
    dev_mode: bool,
    /// Accepted and ignored: messages are kept in PostgreSQL, not in a file.
    #[arg(long, value_name = "FILE")]
    store_path: Option<PathBuf>,
}

impl Run {
    /// The settings file that is named.
    pub(super) fn settings_file(&self) -> Option<PathBuf> {
        self.blossom.config.clone()
    }

    /// The flags as settings.
    pub(super) fn overrides(&self) -> Result<Vec<String>> {
        let flags = &self.flags;
        let mut settings = Vec::new();
        let mut set = |key: &str, value: serde_json::Value| settings.push(format!("{key}={value}"));
        if let Some(address) = &flags.ws_addr {
            set("services.messages.ws_address", every_address(address).into());
        }
        if let Some(address) = &flags.http_addr {
            set("services.messages.http_address", every_address(address).into());
        }
        if let Some(pause) = flags.sweep_interval {
            set("services.messages.sweep_interval_s", pause.as_secs().max(1).into());
        }
        if let Some(seconds) = flags.max_ttl_seconds {
            set("services.messages.max_ttl_s", seconds.into());
        }
        if let Some(id) = &flags.relay_id {
            set("services.messages.relay_id", id.clone().into());
        }
        if !flags.allowed_origins.is_empty() {
            set("services.messages.allowed_origins", flags.allowed_origins.clone().into());
        }
        if flags.dev_mode {
            set("services.messages.dev_mode", true.into());
        }
        if let Some(file) = &flags.store_path {
            notice(format_args!(
                "quipu: --store-path {} is ignored: messages are kept in PostgreSQL, in the database that `quipu url` prints; \
                 the file is neither read nor written",
                file.display()
            ));
        }
        if (!settings.is_empty() || flags.store_path.is_some())
            && !self.services.iter().any(|service| service == MESSAGES)
        {
            bail!("these flags are for `quipu run {MESSAGES}`");
        }
        let BlossomFlags { config, verbose } = &self.blossom;
        if (config.is_some() || *verbose) && !self.services.iter().any(|service| service == BLOSSOM) {
            bail!("--config and --verbose are for `quipu run {BLOSSOM}`");
        }
        if *verbose {
            settings.push("log.level=debug".to_owned());
        }
        if flags.log_json {
            settings.push("log.format=json".to_owned());
        }
        Ok(settings)
    }
}

/// Spells out Go's `:8080`, which names no IP address and means all of them.
fn every_address(address: &str) -> String {
    if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() }
}
