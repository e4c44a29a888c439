//! Drives a headless Chromium by the `DevTools` protocol. `--dump-dom` cannot be used: it waits until the
//! page has loaded, and a page with an open event stream never has.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// The first page that is opened, so that no request of the tested page is missed.
const BLANK: &str = "about:blank";

const TIMEOUT: Duration = Duration::from_mins(1);

/// A browser with one page. It can resolve only 127.0.0.1.
pub(crate) struct Browser {
    child: Child,
    socket: WebSocketStream<TcpStream>,
    calls: u64,
    /// Errors of the page: failed scripts, violated policies.
    pub(crate) complaints: Vec<Value>,
    /// URLs that the page requested. Requests of the browser itself are not included and cannot reach
    /// anything.
    pub(crate) requests: BTreeSet<String>,
    _folder: TempDir,
}

impl Browser {
    /// Opens `url`.
    pub(crate) async fn open(url: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("quipu-chromium-").tempdir().unwrap();
        let profile = folder.path().join("profile");
        let child = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--hide-scrollbars", "--remote-debugging-port=0"])
            .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(BLANK)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let child = match child {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                panic!("chromium is missing: install Debian's package `chromium`")
            }
            started => started.unwrap(),
        };
        let socket = timeout(TIMEOUT, page_socket(&profile)).await.expect("chromium starts in time");
        let mut browser = Self {
            child,
            socket,
            calls: 0,
            complaints: Vec::new(),
            requests: BTreeSet::new(),
            _folder: folder,
        };
        for domain in ["Log.enable", "Runtime.enable", "Network.enable"] {
            browser.call(domain, json!({})).await;
        }
        browser.call("Page.navigate", json!({ "url": url })).await;
        browser
    }

    /// Calls a method of the protocol and waits for its result.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let call = json!({ "id": self.calls, "method": method, "params": params });
        self.socket.send(Message::text(call.to_string())).await.unwrap();
        loop {
            let message =
                timeout(TIMEOUT, self.socket.next()).await.expect("an answer in time").unwrap().unwrap();
            let Ok(text) = message.to_text() else { continue };
            let mut message: Value = serde_json::from_str(text).unwrap_or_default();
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
            let is_complaint = message["method"] == "Runtime.exceptionThrown"
                || (message["method"] == "Log.entryAdded" && message["params"]["entry"]["level"] == "error");
            if is_complaint {
                self.complaints.push(message["params"].take());
            }
            if message["method"] == "Network.requestWillBeSent" {
                self.requests.extend(message["params"]["request"]["url"].as_str().map(str::to_owned));
            }
        }
    }

    /// The value of an expression in the page.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let answer =
            self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true })).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&mut self, expression: &str) {
        for _ in 0..TIMEOUT.as_millis() / 100 {
            // While a page loads it may have no body.
            let guarded = format!("(() => {{ try {{ return {expression} }} catch {{ return false }} }})()");
            if self.evaluate(&guarded).await == true {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("never true: {expression} in {}", self.evaluate("document.documentElement.outerHTML").await);
    }

    /// Closes the browser.
    pub(crate) async fn close(mut self) {
        let closing = json!({ "id": 0, "method": "Browser.close" });
        self.socket.send(Message::text(closing.to_string())).await.unwrap();
        timeout(TIMEOUT, self.child.wait()).await.expect("chromium ends in time").unwrap();
    }
}

/// A connection to the only page.
async fn page_socket(profile: &Path) -> WebSocketStream<TcpStream> {
    let port: u16 = loop {
        let found = std::fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
        if let Some(port) = found.lines().next().and_then(|line| line.parse().ok()) {
            break port;
        }
        sleep(Duration::from_millis(50)).await;
    };
    let address = loop {
        let pages = pages(port).await;
        if let Some(page) = pages.iter().find(|page| page["type"] == "page" && page["url"] == BLANK) {
            break page["webSocketDebuggerUrl"].as_str().unwrap().to_owned();
        }
        sleep(Duration::from_millis(50)).await;
    };
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tokio_tungstenite::client_async(address, stream).await.unwrap().0
}

async fn pages(port: u16) -> Vec<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET /json/list HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    // The server ignores `Connection: close`, so the length tells where the response ends.
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
            });
            if length.is_some_and(|length: usize| body.len() >= length) {
                return serde_json::from_str(body).unwrap_or_default();
            }
        }
        let read = stream.read(&mut chunk).await.unwrap();
        if read == 0 {
            return Vec::new();
        }
        answer.extend_from_slice(&chunk[..read]);
    }
}
