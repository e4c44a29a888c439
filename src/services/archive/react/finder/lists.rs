//! Fetches the operator's lists of relays from the web.

use std::time::Duration;

use serde_json::json;
use serde_json_path::JsonPath;

use super::{Finder, Held};
use crate::base::{RelayUrl, counted};
use crate::config::RelayList;
use crate::lifecycle::{Panicked, guarded_call};
use crate::net::{FetchError, Get, Trust};
use crate::services::archive::append::claim_list;
use crate::services::archive::decide::hints;
use crate::store;

/// Longest list, in bytes; ten times the longest known list.
const BYTES_MAX: usize = 5 * 1024 * 1024;

/// Timeout for one list.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Most redirects for one list.
const REDIRECTS_MAX: usize = 3;

/// Why a list could not be read.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("the answer is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("`path` is not a JSONPath: {0}")]
    Path(#[from] serde_json_path::ParseError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

impl ListError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.reason(),
            Self::Status(_) => "status",
            Self::Json(_) => "not_json",
            Self::Path(_) => "bad_path",
            Self::Panicked(_) => "panicked",
        }
    }
}

impl Finder {
    /// Reads the lists that no process has fetched within the interval. A list that cannot be read is logged
    /// and counted.
    pub(super) async fn read_lists(&self) -> Result<(), store::Error> {
        let interval = Duration::from_secs(self.settings.lists_interval_s.get().into());
        for list in &self.settings.lists {
            if !claim_list(&self.parts.pools, &list.url, interval).await? {
                continue;
            }
            match self.fetch(list).await {
                Ok(urls) => {
                    self.parts.metrics.list("ok");
                    tracing::info!(
                        list = list.url,
                        "{}: {}",
                        list.url,
                        counted(urls.len(), "relay", "relays")
                    );
                    let detail = json!({ "source": "list", "list": list.url });
                    let mut held = Held::new();
                    for url in urls {
                        held.insert(url, detail.clone());
                        if held.len() >= super::HELD_MAX {
                            self.record(std::mem::take(&mut held)).await?;
                        }
                    }
                    self.record(held).await?;
                }
                Err(error) => {
                    self.parts.metrics.list(error.reason());
                    tracing::warn!(list = list.url, "list {} cannot be read: {error}", list.url);
                }
            }
        }
        Ok(())
    }

    async fn fetch(&self, list: &RelayList) -> Result<Vec<RelayUrl>, ListError> {
        let path = list.path.as_deref().map(JsonPath::parse).transpose()?;
        let get = Get {
            url: &list.url,
            trust: Trust::Named,
            accept: "application/json, text/plain;q=0.9, */*;q=0.1",
            bytes_max: BYTES_MAX,
            timeout: TIMEOUT,
            redirects_max: REDIRECTS_MAX,
        };
        let fetched = self.parts.outside.get(get).await?;
        if fetched.status != 200 {
            return Err(ListError::Status(fetched.status));
        }
        // Parsing takes up to half a second, too long for an async worker.
        let url = list.url.clone();
        let read = move || guarded_call("finder_list", &url, || hints::of_list(&fetched.body, path.as_ref()));
        Ok(tokio::task::spawn_blocking(read)
            .await
            .expect("its panics are caught, and it is never aborted")??)
    }
}
