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
use super::{Who, line};
use crate::cli::{Context, output};
use crate::lifecycle::stop_signals;

/// Longest payload that any relay can be set to take, in bytes.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// Messages asked for at once; relays give no more.
const PAGE: usize = 100;

/// Messages remembered as shown. A relay sends again, after a reconnect, what nobody acknowledged.
const SHOWN_MAX: usize = 100_000;

/// Send a message; answered when it is on the relay's disk.
#[derive(Debug, Args)]
pub(in crate::cli) struct Send {
    #[command(flatten)]
    who: Who,
    /// The recipient's `wayfarer_id`.
    #[arg(long, value_name = "ID")]
    to: String,
    /// Seconds that it lives if nobody gets it; else the relay's default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    ttl_seconds: Option<i64>,
    /// Your own name for it: sent again under the same one, it is stored once. Drawn where you give none.
    #[arg(long, value_name = "X")]
    client_msg_id: Option<String>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// What it says; `-` for standard input, as it is.
    #[arg(value_name = "TEXT")]
    text: String,
}

/// Get the messages that wait.
#[derive(Debug, Args)]
pub(in crate::cli) struct Pull {
    #[command(flatten)]
    who: Who,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = limit)]
    limit: usize,
    /// Acknowledge each after it was written, so that this device does not get it again.
    #[arg(long)]
    ack: bool,
    /// One JSON object a message.
    #[arg(long)]
    json: bool,
}

/// Show messages as they come, those that wait first.
#[derive(Debug, Args)]
pub(in crate::cli) struct Tail {
    #[command(flatten)]
    who: Who,
    /// Acknowledge each after it was written, so that this device does not get it again.
    #[arg(long)]
    ack: bool,
    /// One JSON object a message.
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
        let login = self.who.login(context)?;
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

/// The bytes to send.
fn payload(text: String) -> Result<Vec<u8>> {
    let mut bytes = text.into_bytes();
    if bytes == b"-" {
        bytes.clear();
        let most = u64::try_from(PAYLOAD_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
        io::stdin().take(most).read_to_end(&mut bytes).context("cannot read standard input")?;
    }
    if bytes.is_empty() {
        bail!("a message must say something");
    }
    if bytes.len() > PAYLOAD_BYTES_MAX {
        bail!("no relay takes more than {PAYLOAD_BYTES_MAX} bytes: send it in parts");
    }
    Ok(bytes)
}

impl Pull {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let login = self.who.login(context)?;
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
                    other => other.context("cannot write what came; it is not acknowledged")?,
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
                // A relay that knows no positions shows the same ones again until they are acknowledged.
                None if self.ack => {}
                None => break,
            }
        }
        if left == self.limit && !self.json {
            eprintln!("no message waits for {} on device {}", login.wayfarer_id, login.device);
        }
        client.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Tail {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode> {
        let mut stop = pin!(stop_signals()?);
        let login = self.who.login(context)?;
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
                            return Err(error).context("cannot write what came; it is not acknowledged");
                        }
                        Ok(()) | Err(Ended::Output(_)) => {
                            client.close().await;
                            return Ok(ExitCode::SUCCESS);
                        }
                    }
                }
            };
            if !trouble.is_passing() {
                return Err(trouble.into());
            }
            let pause = pauses.next().unwrap_or(Duration::from_secs(30));
            eprintln!("quipu: {trouble}; again in {:.1} s", pause.as_secs_f64());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.next() => return Ok(ExitCode::SUCCESS),
            }
        }
    }
}

/// Why listening ended.
enum Ended {
    Trouble(Trouble),
    Output(io::Error),
}

/// Shows what comes, once. Ends with an error alone.
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

/// The last messages that were shown.
#[derive(Debug, Default)]
struct Shown {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Shown {
    /// Whether this one was not shown yet. From here on it was.
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
