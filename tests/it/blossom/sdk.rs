//! The reference SDK, `blossom-client-sdk` from npm, against the service: in Node, and in a page of another origin. The scenario is in
//! `tests/blossom-client-sdk/scenario.mjs`; it checks each answer itself.

use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use quipu::base::Secret;
use quipu::services::blossom::upstream::UpstreamKeys;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;
use url::form_urlencoded;

use super::client_kit::{User, within_deadline};
use super::kit::{Room, serve_pages, upstream};
use super::server_kit::{Character, Server};
use crate::chromium::Browser;
use crate::support::database::TestDatabase;

/// The steps of the scenario.
const STEPS: [&str; 10] = [
    "upload",
    "has and download",
    "list",
    "mirror",
    "media",
    "two servers",
    "resolve",
    "report",
    "refusals",
    "delete",
];

/// Where `scripts/deps test` installs the SDK.
fn installed() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_quipu")).ancestors().nth(2).unwrap();
    let folder = target.join("blossom-client-sdk");
    assert!(folder.join("node_modules").exists(), "`scripts/deps test` installs {}", folder.display());
    folder
}

/// The scenario and its page.
fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/blossom-client-sdk")
}

/// What the scenario is run against: a room, another one with its own database, and the URL of a blob.
struct Stage {
    room: Room,
    second: Room,
    source: Option<String>,
    _servers: Vec<Server>,
    _databases: [TestDatabase; 2],
}

impl Stage {
    /// In front of three servers, one of which has a blob to mirror.
    async fn with_upstreams() -> Self {
        let databases = [TestDatabase::new().await, TestDatabase::new().await];
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(Server::start(Character::Good).await);
        }
        let hash = servers[2].keep(b"a blob that was there before", "text/plain");
        let source = Some(format!("{}/{hash}.txt", servers[2].url()));
        // Media are changed here and stored at two servers, for which the operator's key signs.
        let signer = Some(Secret::new(User::new(9).keys.secret_key().to_secret_hex()));
        let room = Room::open(&databases[0].urls(), &UpstreamKeys { signer, objects: None }, |settings| {
            settings.upstreams = servers.iter().map(|server| upstream(&server.url())).collect();
            settings.replicas_min = 2_u32.try_into().unwrap();
            serve_pages(settings);
        })
        .await;
        let second = Room::with(&databases[1], serve_pages).await;
        Self { room, second, source, _servers: servers, _databases: databases }
    }

    /// With the built-in stores alone.
    async fn built_in() -> Self {
        let databases = [TestDatabase::new().await, TestDatabase::new().await];
        let (room, second) = (Room::on(&databases[0]).await, Room::on(&databases[1]).await);
        Self { room, second, source: None, _servers: Vec::new(), _databases: databases }
    }

    fn steps(&self) -> Vec<&'static str> {
        STEPS.into_iter().filter(|step| *step != "mirror" || self.source.is_some()).collect()
    }

    /// Runs the scenario in Node; returns the steps that passed.
    async fn in_node(&self) -> Value {
        let running = Command::new("node")
            .arg(scripts().join("node.mjs"))
            .args([self.room.url(""), self.second.url("")])
            .args(&self.source)
            .env("BLOSSOM_CLIENT_SDK_FOLDER", installed())
            .kill_on_drop(true)
            .output();
        let ran = within_deadline("the scenario in Node", running).await.unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        serde_json::from_slice(&ran.stdout).unwrap()
    }
}

/// A file of the page: the scenario, or a package.
async fn file(State(packages): State<PathBuf>, uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    let file = if path.starts_with("node_modules/") { packages.join(path) } else { scripts().join(path) };
    let kind = if path.contains(".html") { "text/html" } else { "text/javascript" };
    match tokio::fs::read(file).await {
        Ok(content) => ([(CONTENT_TYPE, kind)], content).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_sdk_works_in_node_in_front_of_three_servers() {
    let stage = Stage::with_upstreams().await;
    assert_eq!(stage.in_node().await, json!(stage.steps()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_sdk_works_in_node_with_the_built_in_store() {
    let stage = Stage::built_in().await;
    assert_eq!(stage.in_node().await, json!(stage.steps()));
}

/// BL-01.1: a page of any origin may do everything, and reads the reason of a refusal.
#[tokio::test(flavor = "multi_thread")]
async fn bl_01_1_the_reference_sdk_works_in_a_page_of_another_origin() {
    let stage = Stage::with_upstreams().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let mut pages = JoinSet::new();
    let files = Router::new().fallback(file).with_state(installed());
    pages.spawn(async move { axum::serve(listener, files).await.unwrap() });

    let mut given = form_urlencoded::Serializer::new(String::new());
    given.append_pair("server", &stage.room.url("")).append_pair("second", &stage.second.url(""));
    given.extend_pairs(stage.source.iter().map(|source| ("source", source)));
    let mut browser = Browser::open(&format!("{origin}/page.html?{}", given.finish())).await;
    browser.until("window.ended !== undefined").await;
    let ended = browser.evaluate("window.ended").await;
    assert_eq!(ended, json!({ "steps": stage.steps() }), "{:?}", browser.complaints);
    // Refusals are logged as errors; what a policy of origins blocked would be, too.
    let blocked: Vec<_> =
        browser.complaints.iter().filter(|complaint| complaint.to_string().contains("CORS")).collect();
    assert!(blocked.is_empty(), "{blocked:?}");
    browser.close().await;
}
