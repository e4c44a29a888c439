//! `quipu erase --blob`.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::Erase;
use crate::base::{Clock, Sha256, SystemClock, counted};
use crate::cli::{Context, output};
use crate::net::Egress;
use crate::services::blossom::decide::authorization::{Credential, Verb};
use crate::services::blossom::metrics::BlobMetrics;
use crate::services::blossom::upstream::{UpstreamKeys, Upstreams};
use crate::store::removal::blobs::{BlobPreview, erase_blob, preview_blob};
use crate::telemetry::notice;

impl Erase {
    /// The blob leaves first: as long as it is known its copies are made again.
    pub(super) async fn erase_blob(&self, context: &Context, sha256: Sha256) -> Result<ExitCode> {
        let urls = context.urls()?;
        let owner = urls.owner()?;
        if !self.confirm.yes {
            let preview = preview_blob(owner, &sha256).await?;
            self.show_blob(&preview)?;
            if !self.confirm.decide(&preview.holds.to_string()).await? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        let upstreams = if self.keep_files { None } else { Some(upstreams(context)?) };
        let left = erase_blob(owner, &sha256, self.reason.trim()).await?;
        let kept = match upstreams {
            Some(upstreams) => delete_copies(&upstreams, &sha256, &left.places).await,
            None => Vec::new(),
        };
        if self.json {
            output::say(serde_json::to_string(&left)?);
        } else {
            output::say(format_args!("erased: {}; the blob stays banned", left.holds));
        }
        if !kept.is_empty() {
            bail!(
                "the blob is erased, and not all of its copies are; delete them there: {}",
                kept.join("; ")
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    fn show_blob(&self, preview: &BlobPreview) -> Result<()> {
        if self.json && self.confirm.dry_run {
            output::say(serde_json::to_string(preview)?);
            return Ok(());
        }
        let owners = counted(preview.owners, "owner", "owners");
        notice(format_args!("blob {} with {owners}: {}", preview.sha256, preview.holds));
        for place in &preview.places {
            notice(format_args!("copy at {place}"));
        }
        Ok(())
    }
}

/// The upstreams that the settings name.
fn upstreams(context: &Context) -> Result<Upstreams> {
    let configuration = &context.configuration;
    let mut settings = configuration.settings.services.blossom.clone();
    settings.folder.get_or_insert_with(|| context.data.join("blobs"));
    let keys =
        UpstreamKeys { signer: configuration.blossom_key.clone(), objects: configuration.blob_keys.clone() };
    let outside = Egress::new(&configuration.settings.networks)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Ok(Upstreams::open(&settings, &keys, &outside, &clock, &BlobMetrics::default())?)
}

/// Deletes the copies of a blob that is erased. Returns those that stay, each with the reason.
async fn delete_copies(upstreams: &Upstreams, sha256: &Sha256, places: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    for place in places {
        let Some(upstream) = upstreams.named(place) else {
            kept.push(format!("{place}: it is not in the settings"));
            continue;
        };
        let now = SystemClock.now().timestamp();
        let token = match upstreams.credential(upstream, None, Verb::Delete, Some(*sha256), now) {
            Credential::Token(token) => Some(token),
            Credential::Nothing => None,
            Credential::Unavailable => {
                kept.push(format!("{place}: deletion there needs QUIPU_BLOSSOM_KEY"));
                continue;
            }
        };
        if let Err(error) = upstream.delete(sha256, token.as_ref()).await {
            kept.push(format!("{place}: {}", error.reason));
        }
    }
    kept
}
