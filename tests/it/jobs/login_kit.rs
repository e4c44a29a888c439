//! A certified `OpenID` provider in a process of its own, and a browser without a screen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use quipu::base::Secret;
use quipu::config;
use quipu::services::jobs::Secrets;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use url::Url;

use super::kit::{Room, within_deadline};
use crate::support::database::TestDatabase;

/// The secret of the provider's clients.
const SECRET: &str = "app-secret-of-32-bytes-or-more-0";

/// The address of the room as the provider and the browser know it. The browser dials the room's real one.
pub(super) const ORIGIN: &str = "http://127.0.0.1:4999";

/// The name of a session's cookie without encryption.
pub(super) const SESSION: &str = "blobforge_session";

/// npm's `oidc-provider`. It ends with this value.
pub(super) struct Provider {
    pub(super) issuer: String,
    child: Child,
    /// Kept open: a program that writes to a closed one ends.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Provider {
    /// Starts one at any free port.
    pub(super) async fn start() -> Self {
        Self::at(0, &[]).await
    }

    /// Starts one at a port, with further arguments.
    pub(super) async fn at(port: u16, arguments: &[&str]) -> Self {
        let target = Path::new(env!("CARGO_BIN_EXE_quipu")).ancestors().nth(2).unwrap();
        let folder = target.join("oidc-provider");
        assert!(folder.join("node_modules").exists(), "`scripts/deps test` installs {}", folder.display());
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc-provider/provider.mjs");
        let mut child = Command::new("node")
            .arg(program)
            .arg(port.to_string())
            .args(arguments)
            .env("OIDC_PROVIDER_FOLDER", folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let started = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.starts_with("http://") {
                    return line;
                }
            }
            panic!("the provider ended before it answered");
        };
        let issuer = within_deadline("the provider", started).await;
        Self { issuer, child, _output: lines }
    }

    /// Ends it, and returns when its port is free.
    pub(super) async fn stop(mut self) -> u16 {
        self.child.kill().await.unwrap();
        Url::parse(&self.issuer).unwrap().port().unwrap()
    }

    /// A room whose people log in here.
    pub(super) async fn room(&self, database: &TestDatabase) -> Room {
        self.room_with(database, |_| {}).await
    }

    /// A room with changed settings of its login.
    pub(super) async fn room_with(
        &self,
        database: &TestDatabase,
        change: impl FnOnce(&mut config::JobLogin),
    ) -> Room {
        let parts = Room::parts(&database.urls(), |settings| {
            settings.oidc = config::JobLogin {
                issuer: Some(self.issuer.clone()),
                client_id: Some("app".to_owned()),
                redirect_url: Some(format!("{ORIGIN}/auth/callback")),
                allowed_groups: vec!["users".to_owned()],
                admin_groups: vec!["admins".to_owned()],
                ..config::JobLogin::default()
            };
            change(&mut settings.oidc);
        });
        let secrets = Secrets { oidc: Some(&Secret::new(SECRET)), ..Secrets::default() };
        let external = Room::external(&parts, &secrets);
        Room::open_with(parts, external).await
    }
}

/// A response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    /// The values of a header.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// Where it redirects to.
    pub(super) fn location(&self) -> &str {
        let all = self.all("location");
        assert_eq!(all.len(), 1, "{self:?}");
        all[0]
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

/// A browser that keeps cookies by host, as the paths of the provider's cookies do not matter here.
pub(super) struct Browser {
    room: SocketAddr,
    cookies: BTreeMap<(String, String), String>,
}

impl Browser {
    /// A browser without cookies, for which `ORIGIN` is this room.
    pub(super) fn at(room: &Room) -> Self {
        Self { room: room.address, cookies: BTreeMap::new() }
    }

    /// The cookie that the room has set.
    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.get(&(ORIGIN.to_owned(), name.to_owned())).map(String::as_str)
    }

    /// Changes a cookie of the room.
    pub(super) fn set_cookie(&mut self, name: &str, value: &str) {
        self.cookies.insert((ORIGIN.to_owned(), name.to_owned()), value.to_owned());
    }

    /// Asks the room.
    pub(super) async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", &format!("{ORIGIN}{path}"), &[], "").await
    }

    /// Sends a request of a page of the room.
    pub(super) async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.send("POST", &format!("{ORIGIN}{path}"), &[("origin", ORIGIN)], &body.to_string()).await
    }

    /// Sends a request with the cookies of its host, and keeps those of the response. Redirects are not followed.
    pub(super) async fn send(
        &mut self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let url = Url::parse(url).unwrap();
        let origin = url.origin().ascii_serialization();
        let port = url.port().unwrap();
        let address = if origin == ORIGIN { self.room } else { ([127, 0, 0, 1], port).into() };
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut request = format!(
            "{method} {}{query} HTTP/1.0\r\nhost: 127.0.0.1:{port}\r\ncontent-length: {}\r\n",
            url.path(),
            body.len()
        );
        let own = self.cookies.iter().filter(|((host, _), _)| *host == origin);
        let cookies: Vec<String> = own.map(|((_, name), value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            let _ = write!(request, "cookie: {}\r\n", cookies.join("; "));
        }
        for (name, value) in headers {
            let _ = write!(request, "{name}: {value}\r\n");
        }
        request += "\r\n";
        request += body;
        let answer = within_deadline(url.as_str(), async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            String::from_utf8(answer).unwrap()
        })
        .await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let answer = Answer { status, head: head.to_owned(), body: body.to_owned() };
        for cookie in answer.all("set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            let key = (origin.clone(), name.to_owned());
            if value.is_empty() {
                self.cookies.remove(&key);
            } else {
                self.cookies.insert(key, value.to_owned());
            }
        }
        answer
    }

    /// Begins a login; returns the address at the provider.
    pub(super) async fn begin(&mut self, path: &str) -> Url {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 302, "{answer:?}");
        Url::parse(answer.location()).unwrap()
    }

    /// Logs in at the provider as `name`; returns the address to which the provider sends the browser back.
    pub(super) async fn through_provider(&mut self, begun: &Url, name: &str) -> String {
        let mut at = begun.clone();
        for _ in 0..12 {
            if at.as_str().starts_with(ORIGIN) {
                return at.into();
            }
            let page = self.send("GET", at.as_str(), &[], "").await;
            let answer = if page.status == 200 {
                let is_consent = page.body.contains(r#"name="prompt" value="consent""#);
                let form = if is_consent {
                    "prompt=consent".to_owned()
                } else {
                    format!("prompt=login&login={name}&password=x")
                };
                let action = page.body.split(r#"action=""#).nth(1).unwrap().split('"').next().unwrap();
                self.send("POST", action, &[("content-type", "application/x-www-form-urlencoded")], &form)
                    .await
            } else {
                page
            };
            assert!((300..400).contains(&answer.status), "{answer:?}");
            at = at.join(answer.location()).unwrap();
        }
        panic!("the provider does not send the browser back");
    }

    /// Logs in as `name`; returns the answer to the browser that returned.
    pub(super) async fn log_in(&mut self, name: &str) -> Answer {
        let begun = self.begin("/login").await;
        let back = self.through_provider(&begun, name).await;
        self.send("GET", &back, &[], "").await
    }
}

/// `url` with another value of a parameter of its query.
pub(super) fn with_parameter(url: &Url, name: &str, value: &str) -> Url {
    let mut changed = url.clone();
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    assert!(pairs.iter().any(|(key, _)| key == name), "{url}");
    let pairs =
        pairs.into_iter().map(|(key, old)| if key == name { (key, value.to_owned()) } else { (key, old) });
    changed.query_pairs_mut().clear().extend_pairs(pairs);
    changed
}
