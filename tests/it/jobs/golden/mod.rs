//! Requests and answers of BlobForge, under both spellings of its paths, byte for byte but for times, numbers and
//! secrets. Every route that answers with JSON has one.

mod admin;
mod files;
mod jobs;
mod others;
mod work;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::thread::panicking;

use serde_json::{Value, json};

use super::kit::{Room, http};
use super::v1;
use crate::support::database::TestDatabase;

/// The routes of all golden requests. Each test sends those of its own list, or fails.
const ROUTES: &[&[&str]] = &[
    admin::TOKENS,
    admin::WORKERS,
    admin::PEOPLE,
    files::LINKS,
    files::PARTS,
    jobs::SUBMITTING,
    jobs::MANAGING,
    jobs::MANY,
    others::HEALTH,
    others::LOGIN,
    others::SCHEDULES,
    v1::JOBS,
    v1::MANAGING,
    v1::WORKERS,
    v1::ME,
    v1::TOTALS,
    work::WORKING,
    work::LEASES,
];

/// Routes that answer with pages, with files of pages, with the stream or with the bytes of a file. Other tests send
/// requests to them.
const NOT_JSON: &[&str] = &[
    "/",
    "/events",
    "/favicon.svg",
    "/jobs",
    "/jobs.css",
    "/jobs.js",
    "/jobs/cancel-all",
    "/jobs/retry-all",
    "/jobs/{id}",
    "/logged-out",
    "/objects/{*key}",
    "/page.css",
    "/workers",
];

fn is_json(path: &str) -> bool {
    !NOT_JSON.contains(&path) && !["/actions/", "/admin/"].iter().any(|of_pages| path.starts_with(of_pages))
}

#[tokio::test]
async fn every_json_route_has_a_golden_request() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let served = room.parts.edge.endpoints();
    let served = served["jobs"].iter().filter(|endpoint| is_json(endpoint.path));
    let served: BTreeSet<String> =
        served.map(|endpoint| format!("{} {}", endpoint.method, endpoint.path)).collect();
    let golden: BTreeSet<String> = ROUTES.iter().copied().flatten().map(|&route| route.to_owned()).collect();
    let difference: Vec<_> = served.symmetric_difference(&golden).collect();
    assert!(
        difference.is_empty(),
        "served without a golden request, or golden and not served: {difference:?}"
    );
}

/// A client that notes the routes of its successful requests. It fails the test that drops it without a request to
/// each route of its list.
pub(super) struct Golden<'a> {
    room: &'a Room,
    token: Option<String>,
    routes: &'static [&'static str],
    answered: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Golden<'a> {
    /// A program on this machine, for these routes: `POST /api/jobs/{id}/cancel`.
    pub(super) fn of(room: &'a Room, routes: &'static [&'static str]) -> Self {
        Self { room, token: None, routes, answered: RefCell::default() }
    }

    /// The holder of an API token.
    pub(super) fn with(room: &'a Room, routes: &'static [&'static str], token: String) -> Self {
        Self { room, token: Some(token), routes, answered: RefCell::default() }
    }

    /// Sends a request. Returns its status and its answer as it is.
    pub(super) async fn answer(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let route = self.route(method, path);
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        let (status, answer) = http(self.room.address, method, path, &headers, body).await;
        // 501 is the answer of what is switched off.
        if status < 400 || status == 501 {
            self.answered.borrow_mut().insert(route);
        }
        (status, answer)
    }

    /// Sends a request that gets exactly this answer.
    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        status: u16,
        expected: Value,
    ) {
        let (told, answer) = self.answer(method, path, body.as_ref()).await;
        assert_eq!((told, plain(answer)), (status, expected), "{method} {path} {body:?}");
    }

    /// Sends a request that is refused: the answer has these members, and the reason under both names.
    pub(super) async fn refused(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        status: u16,
        members: Value,
    ) {
        let (told, answer) = self.answer(method, path, body.as_ref()).await;
        assert_eq!(told, status, "{method} {path} {body:?}: {answer}");
        for (name, value) in members.as_object().unwrap() {
            assert_eq!(&answer[name], value, "{method} {path} {body:?}: {answer}");
        }
        assert!(answer["error"].is_string() && answer["error"] == answer["message"], "{answer}");
    }

    /// The route of a request.
    fn route(&self, method: &str, path: &str) -> &'static str {
        let path = path.split('?').next().unwrap();
        let is_of = |route: &&&str| {
            let (of_method, pattern) = route.split_once(' ').unwrap();
            let (parts, given): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
            let fits = |(part, given): (&&str, &&str)| part.starts_with('{') || part == given;
            of_method == method && parts.len() == given.len() && parts.iter().zip(&given).all(fits)
        };
        // `/claim` is more than `/{id}`.
        let found = self.routes.iter().filter(is_of).min_by_key(|route| route.matches('{').count());
        found.copied().unwrap_or_else(|| panic!("{method} {path} is not in the list of this test"))
    }
}

impl Drop for Golden<'_> {
    fn drop(&mut self) {
        let answered = self.answered.borrow();
        let silent: Vec<_> = self.routes.iter().filter(|route| !answered.contains(**route)).collect();
        assert!(panicking() || silent.is_empty(), "no successful request to {silent:?}");
    }
}

/// Replaces what differs between runs: times by `NOW`, tokens and secrets by `SECRET`, positions by `POSITION`, signed
/// URLs by their paths. When a worker was last heard of is left out, because it is recorded later.
pub(super) fn plain(mut value: Value) -> Value {
    replace(&mut value);
    value
}

fn replace(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("request_id");
            members.remove("last_heartbeat");
            for (name, member) in members {
                match member {
                    Value::String(text) => {
                        if let Some(plain) = plain_text(name, text) {
                            *text = plain;
                        }
                    }
                    Value::Number(_) if ["next_before", "position"].contains(&name.as_str()) => {
                        *member = json!("POSITION");
                    }
                    member => replace(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(replace),
        _ => {}
    }
}

fn plain_text(name: &str, text: &str) -> Option<String> {
    let is_time = name.ends_with("_at") || ["at", "last_login", "since"].contains(&name);
    match name {
        _ if is_time => chrono::DateTime::parse_from_rfc3339(text).is_ok().then(|| "NOW".to_owned()),
        "lease_token" | "secret" | "token" | "upload_id" => Some("SECRET".to_owned()),
        "source_url" | "upload_url" | "url" => {
            let (_, rest) = text.split_once("//")?;
            let (path, _) = rest[rest.find('/')?..].split_once("?grant=")?;
            Some(path.to_owned())
        }
        _ => None,
    }
}

/// What workers are told with every answer.
pub(super) fn config() -> Value {
    json!({ "heartbeat_enabled": true, "heartbeat_interval": 60, "lease_seconds": 900, "max_retries": 3 })
}

/// The members of an answer that refuses one field.
pub(super) fn bad(field: &str) -> Value {
    json!({ "code": "bad_request", "field": field })
}

/// The answer to a request about something that is not there.
pub(super) fn missing(what: &str) -> Value {
    let message = format!("{what} not found");
    json!({ "code": "not_found", "error": message, "message": message })
}
