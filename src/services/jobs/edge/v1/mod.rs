//! The routes of BlobForge's rewrite, which name a job by the hash of its source and a worker in the body. Each finds
//! out which job or worker is meant, and calls the handler of the route of which it is another spelling.

mod jobs;
mod workers;

use super::{JobsState, credentials, manage, stats, work, workers as by_id};
use crate::http::{Access, Routes};
use crate::services::jobs::decide::Scope;
use jobs::of_source;

/// The routes, each with the access of its counterpart.
pub(super) fn routes() -> Routes<JobsState> {
    use Access::{Admin, Anyone, Token};
    Routes::new()
        .get("/api/v1/health", Anyone, stats::health)
        .get("/api/v1/config", Token, workers::config)
        .get("/api/v1/snapshot", Token, stats::stats)
        .put("/api/v1/jobs/{hash}", Token, jobs::submit)
        .get("/api/v1/jobs/{hash}", Token, jobs::job)
        .post("/api/v1/jobs/claim", Token, work::claim)
        .post("/api/v1/jobs/{hash}/heartbeat", Token, of_source(Scope::Work, work::heartbeat))
        .post("/api/v1/jobs/{hash}/complete", Token, of_source(Scope::Work, work::complete))
        .post("/api/v1/jobs/{hash}/fail", Token, of_source(Scope::Work, work::fail))
        .post("/api/v1/jobs/{hash}/release", Token, of_source(Scope::Work, work::release))
        .post("/api/v1/jobs/{hash}/upload-url", Token, jobs::upload_url)
        .get("/api/v1/workers/me", Token, workers::me)
        .post("/api/v1/workers/register", Token, by_id::register)
        .post("/api/v1/workers/heartbeat", Token, workers::heartbeat)
        .post("/api/v1/workers/state", Token, workers::change_state)
        .post("/api/v1/workers/deregister", Token, workers::deregister)
        .get("/api/v1/admin/snapshot", Token, stats::stats)
        .get("/api/v1/admin/config", Token, workers::shown_config)
        .get("/api/v1/admin/workers", Token, by_id::list)
        .post("/api/v1/admin/workers", Admin, credentials::create_worker)
        .post("/api/v1/admin/jobs/{hash}/retry", Token, of_source(Scope::Manage, manage::retry))
        .post("/api/v1/admin/jobs/{hash}/cancel", Token, of_source(Scope::Manage, manage::cancel))
        .post("/api/v1/admin/jobs/{hash}/priority", Token, of_source(Scope::Manage, manage::priority))
        .get("/api/v1/admin/jobs/{hash}/failures", Token, jobs::failures)
}
