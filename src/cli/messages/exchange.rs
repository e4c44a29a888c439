//! `quipu messages send`, `pull` and `tail`.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read as _};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use backon::{BackoffBuilder, ExponentialBuilder};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use futures_util::StreamExt as _;
use serde_json::json;
use uuid::Uuid;

use super::client::{Client, Purpose, Trouble};
use super::frame::{Frame, Message};
use super::{LoginArgs, line};
use crate::cli::{Context, output};
use crate::lifecycle::stop_signals;
use crate::telemetry::notice;

/// Longest payload that a relay can be configured to accept, in bytes.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// Messages in one request. Relays return no more than this.
const PAGE: usize = 100;

/// Most messages that are remembered as shown: after a reconnect a relay sends again what was not
/// acknowledged.
const SHOWN_MAX: usize = 100_000;

/// Send a message. Succeeds when the message is on the relay's disk.
#[derive(Debug, Args)]
pub(in crate::cli) struct Send {
    #[command(flatten)]
    login: LoginArgs,
    /// The recipient's `wayfarer_id`.
    #[arg(long, value_name = "ID")]
    to: String,
    /// Seconds after which the message expires [default: the relay's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    ttl_seconds: Option<i64>,
    /// An id of your own for the message: sent again with the same id, it is stored once [default: a random
    /// id].
    #[arg(long, value_name = "X")]
    client_msg_id: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The text of the message; `-` reads bytes from standard input.
    #[arg(value_name = "TEXT")]
    text: String,
}

/// Get waiting messages.
#[derive(Debug, Args)]
pub(in crate::cli) struct Pull {
    #[command(flatten)]
    login: LoginArgs,
    /// Most messages to get.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = limit)]
    limit: usize,
    /// Acknowledge each message after it was printed, so that this device does not get it again.
    #[arg(long)]
    ack: bool,
    /// Print one JSON object for each message.
    #[arg(long)]
    json: bool,
}

/// Show waiting messages, then new ones as they arrive, until Ctrl-C.
#[derive(Debug, Args)]
pub(in crate::cli) struct Tail {
    #[command(flatten)]
    login: LoginArgs,
    /// Acknowledge each message after it was printed, so that this device does not get it again.
    #[arg(long)]
    ack: bool,
    /// Print one JSON object for each message.
    #[arg(long)]
    json: bool,
}

fn limit(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|limit| *limit > 0).ok_or_else(|| "a number from 1 on".to_owned())
}

impl Send {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let payload = payload(self.text)?;
        let client_msg_id = self.client_msg_id.unwrap_or_else(|| Uuid::new_v4().to_string());
        let mut frame = json!({
            "type": "send", "to": self.to, "payload_b64": URL_SAFE_NO_PAD.encode(payload), "client_msg_id": client_msg_id,
        });
        if let Some(seconds) = self.ttl_seconds {
            frame["ttl_seconds"] = seconds.into();
        }
        let login = self.login.login(context)?;
        let mut client = Client::connect(&login, Purpose::Ask).await?;
        let stored = client.store(&frame).await.map_err(|trouble| match trouble {
            Trouble::Refused { .. } => anyhow::Error::new(trouble),
            unknown => anyhow::Error::new(unknown).context(format!(
                "it is not known whether the message is stored; sent again with `--client-msg-id {client_msg_id}` it is \
                 stored once"
            )),
        })?;
        client.close().await;
        if self.json {
            output::say(serde_json::to_string(&stored)?);
        } else {
            output::say(format_args!(
                "{}  stored until {}",
                line::Plain(&stored.msg_id),
                output::instant(stored.expires_at)
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The payload: the argument, or standard input.
fn payload(text: String) -> Result<Vec<u8>> {
    let mut bytes = text.into_bytes();
    if bytes == b"-" {
        bytes.clear();
        let most = u64::try_from(PAYLOAD_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
        io::stdin().take(most).read_to_end(&mut bytes).context("cannot read standard input")?;
    }
    if bytes.is_empty() {
        bail!("the message is empty");
    }
    if bytes.len() > PAYLOAD_BYTES_MAX {
        bail!(
            "the message has more than {PAYLOAD_BYTES_MAX} bytes, the most that any relay accepts: send it in parts"
        );
    }
    Ok(bytes)
}

impl Pull {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let login = self.login.login(context)?;
        let mut client = Client::connect(&login, Purpose::Ask).await?;
        let (mut left, mut after) = (self.limit, 0);
        loop {
            let page = client.pull(left.min(PAGE), after).await?;
            let Some(last) = page.last() else { break };
            let mut written = 0;
            for message in &page {
                match line::write(message, self.json) {
                    Ok(()) => written += 1,
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                    other => other
                        .context("cannot write the message to standard output; it was not acknowledged")?,
                }
            }
            if self.ack {
                for message in &page[..written] {
                    client.acknowledge(&message.msg_id).await?;
                }
                client.acknowledged(written).await?;
            }
            left = left.saturating_sub(page.len());
            if left == 0 || written < page.len() {
                break;
            }
            match last.position {
                Some(position) => after = position,
                // A relay without positions returns the same messages again until they are acknowledged.
                None if self.ack => {}
                None => break,
            }
        }
        if left == self.limit && !self.json {
            notice(format_args!("no message waits for {} on device {}", login.wayfarer_id, login.device));
        }
        client.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Tail {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let mut stop = pin!(stop_signals()?);
        let login = self.login.login(context)?;
        let mut shown = Shown::default();
        let backoff = || {
            ExponentialBuilder::default()
                .with_jitter()
                .with_min_delay(Duration::from_millis(500))
                .with_max_delay(Duration::from_secs(30))
                .without_max_times()
                .build()
        };
        let mut pauses = backoff();
        loop {
            let connected = tokio::select! {
                connected = Client::connect(&login, Purpose::Listen) => connected,
                _ = stop.next() => return Ok(ExitCode::SUCCESS),
            };
            let trouble = match connected {
                Err(trouble) => trouble,
                Ok(mut client) => {
                    pauses = backoff();
                    let listening = listen(&mut client, &mut shown, self.ack, self.json);
                    let ended = tokio::select! {
                        ended = listening => ended,
                        _ = stop.next() => Ok(()),
                    };
                    match ended {
                        Err(Ended::Trouble(trouble)) => trouble,
                        Err(Ended::Output(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                            return Err(error).context(
                                "cannot write the message to standard output; it was not acknowledged",
                            );
                        }
                        Ok(()) | Err(Ended::Output(_)) => {
                            client.close().await;
                            return Ok(ExitCode::SUCCESS);
                        }
                    }
                }
            };
            if !trouble.is_transient() {
                return Err(trouble.into());
            }
            let pause = pauses.next().unwrap_or(Duration::from_secs(30));
            notice(format_args!("quipu: {trouble}; trying again in {:.1} s", pause.as_secs_f64()));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.next() => return Ok(ExitCode::SUCCESS),
            }
        }
    }
}

/// The reason why [`listen`] ended.
enum Ended {
    Trouble(Trouble),
    Output(io::Error),
}

/// Prints each message once. Returns only with an error.
async fn listen(client: &mut Client<'_>, shown: &mut Shown, ack: bool, json: bool) -> Result<(), Ended> {
    loop {
        let Frame::Message(message) = client.next().await.map_err(Ended::Trouble)? else { continue };
        if shown.is_new(&message) {
            line::write(&message, json).map_err(Ended::Output)?;
        }
        if ack {
            client.acknowledge(&message.msg_id).await.map_err(Ended::Trouble)?;
        }
    }
}

/// The messages that were printed last, up to [`SHOWN_MAX`].
#[derive(Debug, Default)]
struct Shown {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Shown {
    /// Whether the message was not printed yet. Remembers it as printed.
    fn is_new(&mut self, message: &Message) -> bool {
        if !self.ids.insert(message.msg_id.clone()) {
            return false;
        }
        self.order.push_back(message.msg_id.clone());
        if self.order.len() > SHOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}
