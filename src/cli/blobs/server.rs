//! A client of a Blossom server: which one it is, and the key that signs its tokens.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nostr_sdk::Keys;
use serde::de::DeserializeOwned;
use thiserror::Error;
use url::Url;

use crate::app::instance;
use crate::base::{Clock as _, Secret, Sha256, SystemClock};
use crate::cli::Context;
use crate::cli::output::one_line;
use crate::config::read_secret_file;
use crate::net::{Call, Caller, Content, DialError, Egress, FetchError, Reply, Verb};
use crate::services::blossom::decide::authorization::{Verb as Action, token};

/// Time limit for an answer, apart from uploads.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_mins(1);

/// Time for which a token is valid beyond the time limit of its request: clocks differ.
const MARGIN: Duration = Duration::from_mins(1);

/// Longest answer, bytes: a page of a thousand descriptors.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest body of a refusal that is read, bytes.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// Characters of a server's text that are shown.
const SHOWN: usize = 300;

/// Where a server listens if nothing names another one; `quipu run blossom` does.
const DEFAULT: &str = "http://127.0.0.1:8080";

/// The key that signs tokens.
#[derive(Debug, Clone, Args)]
pub(super) struct KeyArgs {
    /// A file with your secret key, 64 hex digits or nsec1…. Without it: the variable `QUIPU_BLOSSOM_KEY`.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl KeyArgs {
    /// The key, if one is given.
    pub(super) fn find(&self, context: &Context) -> Result<Option<Keys>> {
        let (text, from) = match &self.key_file {
            Some(path) => (read_secret_file(path)?, path.display().to_string()),
            None => match &context.configuration.blossom_key {
                Some(key) => (key.clone(), "QUIPU_BLOSSOM_KEY".to_owned()),
                None => return Ok(None),
            },
        };
        let keys = Keys::parse(text.expose());
        keys.map(Some).map_err(|_| anyhow::anyhow!("{from}: expected 64 hex digits or nsec1…"))
    }

    /// The key.
    pub(super) fn require(&self, context: &Context) -> Result<Keys> {
        self.find(context)?
            .context("no key: give --key-file, or set QUIPU_BLOSSOM_KEY or QUIPU_BLOSSOM_KEY_FILE")
    }
}

/// The server.
#[derive(Debug, Clone, Args)]
pub(super) struct ServerArgs {
    /// The server's URL. Without it: the instance on `--data`, or else `http://127.0.0.1:8080`.
    #[arg(long, short, value_name = "URL")]
    server: Option<Url>,
    #[command(flatten)]
    key: KeyArgs,
}

impl ServerArgs {
    /// A client with the key, if one is given.
    pub(super) fn open(&self, context: &Context) -> Result<Server> {
        let base = self.url(context)?;
        let outside = Egress::new(&context.configuration.settings.networks).context("networks")?;
        let caller = outside.caller().context("networks")?;
        Ok(Server { caller, base, keys: self.key.find(context)? })
    }

    fn url(&self, context: &Context) -> Result<Url> {
        let (url, from) = if let Some(url) = &self.server {
            (url.clone(), "--server")
        } else {
            let running = instance::running(&context.data).ok();
            let address = running.and_then(|instance| instance.services.get("blossom").cloned());
            let (text, from) = match address {
                Some(address) => (format!("http://{address}"), "instance.json"),
                None => (DEFAULT.to_owned(), "the default"),
            };
            (Url::parse(&text).with_context(|| format!("{from}: `{text}` is not a URL"))?, from)
        };
        let is_plain = url.username().is_empty() && url.password().is_none() && url.path() == "/";
        if !matches!(url.scheme(), "http" | "https") || !is_plain {
            bail!("{from}: expected http://host or https://host, without user and path");
        }
        Ok(url)
    }
}

/// A Blossom server.
#[derive(Debug)]
pub(super) struct Server {
    caller: Caller,
    base: Url,
    keys: Option<Keys>,
}

/// Why a request has no result.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    #[error("{url}: {why}{}", advice_of_failure(.why))]
    Unreachable { url: Box<Url>, why: FetchError },
    #[error("the server refuses with {status}: {}{}", one_line(.message, SHOWN), advice(*.status))]
    Refused { status: u16, message: String },
    #[error("{0} answers with something else than JSON of Blossom; is it a Blossom server?")]
    NotJson(Box<Url>),
}

fn advice(status: u16) -> &'static str {
    match status {
        401 => "; tokens are signed with the key of --key-file or QUIPU_BLOSSOM_KEY",
        _ => "",
    }
}

fn advice_of_failure(why: &FetchError) -> &'static str {
    match why {
        FetchError::Dial(DialError::Refused) => {
            "; does the service `blossom` run there? --server names another server"
        }
        _ => "",
    }
}

/// A request to the server.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) verb: Verb,
    /// Path and query.
    pub(super) path: &'a str,
    pub(super) action: Action,
    /// The blob that the token names.
    pub(super) blob: Option<Sha256>,
    pub(super) content: Content,
    /// Time until the answer begins.
    pub(super) within: Duration,
}

impl Server {
    /// The key that requests are signed with.
    pub(super) fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    /// Sends a request with a token, if there is a key. Returns its status and the JSON of its answer.
    pub(super) async fn ask<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<(u16, T), Trouble> {
        let url = self.base.join(ask.path).unwrap_or_else(|_| self.base.clone());
        let unreachable = |why| Trouble::Unreachable { url: Box::new(url.clone()), why };
        let mut headers = Vec::new();
        if let Some(keys) = &self.keys {
            // For every server: this one passes the token on to its upstreams, where one for it alone is not valid.
            let wanted = Wanted { action: ask.action, blobs: ask.blob.as_slice(), server: None };
            headers.push(("authorization", wanted.sign(keys, ask.within + MARGIN)));
        }
        if ask.action == Action::Upload
            && let Some(blob) = ask.blob
        {
            headers.push(("x-sha-256", Secret::new(blob.to_string())));
        }
        let call = Call {
            verb: ask.verb,
            url: &url,
            headers: &headers,
            content: ask.content,
            head_within: ask.within,
        };
        let reply = self.caller.call(call).await.map_err(unreachable)?;
        if !(200..300).contains(&reply.status) {
            return Err(refusal(reply).await);
        }
        let status = reply.status;
        let body = reply.body(ANSWER_BYTES_MAX, ANSWER_WITHIN).await.map_err(unreachable)?;
        let answer = serde_json::from_slice(&body).map_err(|_| Trouble::NotJson(Box::new(url.clone())))?;
        Ok((status, answer))
    }
}

/// The reason is in a header; servers that give none there write it into the body.
async fn refusal(mut reply: Reply) -> Trouble {
    let status = reply.status;
    if let Some(message) = reply.headers.remove("x-reason").filter(|reason| !reason.trim().is_empty()) {
        return Trouble::Refused { status, message };
    }
    let body = reply.body(REFUSAL_BYTES_MAX, ANSWER_WITHIN).await.unwrap_or_default();
    Trouble::Refused { status, message: String::from_utf8_lossy(&body).into_owned() }
}

/// A token to sign.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) action: Action,
    /// The blobs that it names.
    pub(super) blobs: &'a [Sha256],
    /// The host that it is for; without one for every server.
    pub(super) server: Option<&'a str>,
}

impl Wanted<'_> {
    /// The value of the header `Authorization`, valid for `lifetime`.
    pub(super) fn sign(self, keys: &Keys, lifetime: Duration) -> Secret {
        let now = SystemClock.now().timestamp();
        let until = now.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
        let tag = |name: &str, value: String| vec![name.to_owned(), value];
        let mut tags = vec![tag("t", self.action.as_str().to_owned()), tag("expiration", until.to_string())];
        tags.extend(self.blobs.iter().map(|blob| tag("x", blob.to_string())));
        tags.extend(self.server.map(|host| tag("server", host.to_owned())));
        token(keys, &tags, self.action.as_str(), now)
    }
}
