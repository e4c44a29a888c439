//! How the service fares, in the shapes of Blossom Espelhator: `/health` and `/stats`, and a page for people.

mod page;

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use chrono::SecondsFormat;
use serde::Serialize;

use super::BlossomState;
use crate::http::{ExpectedStatus, Failure};
use crate::services::blossom::upstream::UpstreamStats;
use crate::telemetry::resident_memory_bytes;

pub(super) use page::routes;

/// A number and its limit.
#[derive(Debug, Serialize)]
struct Memory {
    bytes: u64,
    max: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthy: Option<bool>,
}

/// Tasks, under the name that the original has for its own.
#[derive(Debug, Serialize)]
struct Tasks {
    count: u64,
    max: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthy: Option<bool>,
}

/// The body of `/health`.
#[derive(Debug, Serialize)]
struct Health {
    healthy: bool,
    healthy_count: usize,
    min_upload_servers: u32,
    memory: Memory,
    goroutines: Tasks,
    servers: BTreeMap<String, ServerHealth>,
}

#[derive(Debug, Serialize)]
struct ServerHealth {
    healthy: bool,
    consecutive_failures: u32,
}

/// The body of `/stats`.
#[derive(Debug, Serialize)]
struct Stats {
    servers: BTreeMap<String, ServerStats>,
    totals: Counts,
    memory: Memory,
    goroutines: Tasks,
    healthy_count: usize,
    total_servers: usize,
}

#[derive(Debug, Default, Serialize)]
struct Counts {
    uploads_success: u64,
    uploads_failure: u64,
    downloads: u64,
    mirrors_success: u64,
    mirrors_failure: u64,
    deletes_success: u64,
    deletes_failure: u64,
    lists_success: u64,
    lists_failure: u64,
}

#[derive(Debug, Serialize)]
struct ServerStats {
    url: String,
    #[serde(flatten)]
    counts: Counts,
    consecutive_failures: u32,
    is_healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success_time: Option<String>,
}

impl From<&UpstreamStats> for Counts {
    fn from(stats: &UpstreamStats) -> Self {
        Self {
            uploads_success: stats.uploads_success,
            uploads_failure: stats.uploads_failure,
            downloads: stats.downloads,
            mirrors_success: stats.mirrors_success,
            mirrors_failure: stats.mirrors_failure,
            deletes_success: stats.deletes_success,
            deletes_failure: stats.deletes_failure,
            lists_success: stats.lists_success,
            lists_failure: stats.lists_failure,
        }
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.uploads_success += other.uploads_success;
        self.uploads_failure += other.uploads_failure;
        self.downloads += other.downloads;
        self.mirrors_success += other.mirrors_success;
        self.mirrors_failure += other.mirrors_failure;
        self.deletes_success += other.deletes_success;
        self.deletes_failure += other.deletes_failure;
        self.lists_success += other.lists_success;
        self.lists_failure += other.lists_failure;
    }
}

/// 200 while enough upstreams work and memory and tasks are within their limits, else 503.
pub(super) async fn health(
    State(state): State<BlossomState>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    state.refuse_other_pages(&headers).map_err(|refused| state.refuse(refused))?;
    let health = state.health();
    let status = if health.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Extension(ExpectedStatus), Json(health)).into_response())
}

pub(super) async fn stats(
    State(state): State<BlossomState>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    state.refuse_other_pages(&headers).map_err(|refused| state.refuse(refused))?;
    Ok(Json(state.stats()).into_response())
}

impl BlossomState {
    fn health(&self) -> Health {
        let settings = self.settings();
        let (mut memory, mut goroutines) = self.usage();
        let servers: BTreeMap<String, ServerHealth> = self
            .upstream_stats()
            .map(|(name, stats)| {
                let UpstreamStats { is_healthy: healthy, consecutive_failures, .. } = stats;
                (name, ServerHealth { healthy, consecutive_failures })
            })
            .collect();
        let healthy_count = servers.values().filter(|server| server.healthy).count();
        let is_enough = u32::try_from(healthy_count).unwrap_or(u32::MAX) >= settings.replicas_min.get();
        let (is_small, are_few) = (memory.bytes <= memory.max, goroutines.count <= goroutines.max);
        (memory.healthy, goroutines.healthy) = (Some(is_small), Some(are_few));
        Health {
            healthy: is_enough && is_small && are_few,
            healthy_count,
            min_upload_servers: settings.replicas_min.get(),
            memory,
            goroutines,
            servers,
        }
    }

    fn stats(&self) -> Stats {
        let (memory, goroutines) = self.usage();
        let mut totals = Counts::default();
        let mut healthy_count = 0;
        let mut servers = BTreeMap::new();
        for (url, stats) in self.upstream_stats() {
            let counts = Counts::from(&stats);
            totals.add(&counts);
            healthy_count += usize::from(stats.is_healthy);
            let time = |time: chrono::DateTime<chrono::Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
            let server = ServerStats {
                url: url.clone(),
                counts,
                consecutive_failures: stats.consecutive_failures,
                is_healthy: stats.is_healthy,
                last_failure_time: stats.last_failure.map(time),
                last_success_time: stats.last_success.map(time),
            };
            servers.insert(url, server);
        }
        Stats { total_servers: servers.len(), servers, totals, memory, goroutines, healthy_count }
    }

    fn upstream_stats(&self) -> impl Iterator<Item = (String, UpstreamStats)> {
        let upstreams = self.parts().upstreams.list().iter();
        upstreams.map(|upstream| (upstream.name().to_owned(), upstream.stats()))
    }

    /// Memory and tasks of this process, whatever other services it runs.
    fn usage(&self) -> (Memory, Tasks) {
        let settings = self.settings();
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let memory = Memory {
            bytes: resident_memory_bytes().unwrap_or(0),
            max: settings.memory_bytes_max.get(),
            healthy: None,
        };
        let count = u64::try_from(tasks).unwrap_or(u64::MAX);
        (memory, Tasks { count, max: settings.tasks_max.get().into(), healthy: None })
    }
}
