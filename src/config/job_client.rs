//! What commands that talk to a job queue find in the environment. Each value has a name of Quipu, which comes
//! first, and the one of BlobForge.

use super::environment::{Environment, JOB_SECRETS};
use crate::base::Secret;

const URL: [&str; 2] = ["QUIPU_JOBS_URL", "BLOBFORGE_SERVER_URL"];
const TOKEN: [&str; 2] = [JOB_SECRETS[0], JOB_SECRETS[1]];
const WORKER_ID: [&str; 2] = ["QUIPU_WORKER_ID", "BLOBFORGE_WORKER_ID"];
const WORKER_SECRET: [&str; 2] = [JOB_SECRETS[2], JOB_SECRETS[3]];
const HEARTBEAT: [&str; 2] = ["QUIPU_WORKER_HEARTBEAT", "BLOBFORGE_HEARTBEAT_INTERVAL"];

/// What the environment says about the server of jobs and about this worker. Flags come before it.
#[derive(Debug, Clone, Default)]
pub struct JobClientEnv {
    /// The variable that has the server's URL, and the URL, unchecked.
    pub url: Option<(&'static str, String)>,
    /// An API token.
    pub token: Option<Secret>,
    /// The worker's id.
    pub worker_id: Option<String>,
    /// The worker's own secret.
    pub worker_secret: Option<Secret>,
    /// Seconds between two heartbeats, unchecked.
    pub heartbeat_s: Option<String>,
}

impl JobClientEnv {
    /// Reads the variables.
    #[must_use]
    pub(super) fn read(environment: &Environment) -> Self {
        let get = |names: [&str; 2]| names.into_iter().find_map(|name| environment.get(name));
        let text = |names| get(names).map(str::to_owned);
        let url = URL.into_iter().find_map(|name| Some((name, environment.get(name)?.to_owned())));
        Self {
            url,
            token: get(TOKEN).map(Secret::new),
            worker_id: text(WORKER_ID),
            worker_secret: get(WORKER_SECRET).map(Secret::new),
            heartbeat_s: text(HEARTBEAT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_quipu_comes_first_and_an_empty_variable_counts_as_unset() {
        let environment = Environment::from_iter([
            ("BLOBFORGE_SERVER_URL", "http://old"),
            ("QUIPU_JOBS_URL", "http://new"),
            ("QUIPU_JOBS_TOKEN", ""),
            ("BLOBFORGE_API_TOKEN", "bf_old"),
        ]);
        let found = JobClientEnv::read(&environment);
        assert_eq!(found.url, Some(("QUIPU_JOBS_URL", "http://new".to_owned())));
        let old = JobClientEnv::read(&Environment::from_iter([("BLOBFORGE_SERVER_URL", "http://old")]));
        assert_eq!(old.url, Some(("BLOBFORGE_SERVER_URL", "http://old".to_owned())));
        assert_eq!(found.token, Some(Secret::new("bf_old")));
        assert!(found.worker_id.is_none() && !format!("{found:?}").contains("bf_old"));
    }
}
