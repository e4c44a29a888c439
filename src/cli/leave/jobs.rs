//! `quipu erase --job` and `quipu retention --jobs`.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::{Erase, Retention};
use crate::base::{Secret, counted};
use crate::cli::{Context, output};
use crate::net::Egress;
use crate::net::objects::Objects;
use crate::services::jobs::open_objects;
use crate::store::removal::jobs::{
    JobPartition, JobPreview, JobRemovalError, drop_jobs, erase_job, is_source_in_use, job_partitions_before,
    preview_job,
};
use crate::telemetry::notice;

/// The storage of files that the settings name; `None` if there is none yet.
fn storage(context: &Context) -> Result<Option<Objects>> {
    let configuration = &context.configuration;
    let mut files = configuration.settings.services.jobs.files.clone();
    let folder = files.folder.get_or_insert_with(|| context.data.join("objects"));
    // Opening a folder creates it.
    let is_there = folder.is_dir();
    if files.bucket().is_none() && !is_there {
        return Ok(None);
    }
    let outside = Egress::new(&configuration.settings.networks)?;
    Ok(open_objects(&files, configuration.object_keys.as_ref(), &outside)?)
}

/// Deletes the files of a job that is erased. A source that another job has named meanwhile stays.
async fn delete_objects(storage: &Objects, owner: &Secret, keys: &[String]) -> Result<()> {
    for key in keys {
        if key.starts_with("sources/") && is_source_in_use(owner, key).await? {
            notice(format_args!("file {key} stays: another job names it"));
            continue;
        }
        storage.delete(key).await.with_context(|| format!("file {key}"))?;
    }
    Ok(())
}

impl Erase {
    /// The job leaves first: as long as it is there it may be retried, and needs its files.
    pub(super) async fn erase_job(&self, context: &Context, job: i64) -> Result<ExitCode> {
        let urls = context.urls()?;
        let owner = urls.owner()?;
        let preview = preview_job(owner, job).await?;
        if !self.confirm.yes {
            self.show_job(&preview)?;
            if !self.confirm.decide(&preview.holds.to_string()).await? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        let storage = if self.keep_files { None } else { storage(context)? };
        if storage.is_none() && !self.keep_files && !preview.objects.is_empty() {
            bail!(
                "there is no storage of files here: name it (--data, services.jobs.files), or erase the job with --keep-files and \
                 delete its files yourself: {}",
                preview.objects.join(", ")
            );
        }
        let (left, objects) = erase_job(owner, job, self.reason.trim()).await?;
        if let Some(storage) = storage {
            delete_objects(&storage, owner, &objects).await.with_context(|| {
                format!("the job is erased, and its files are not: delete {}", objects.join(", "))
            })?;
        }
        if self.json {
            output::say(serde_json::to_string(&left)?);
        } else {
            output::say(format_args!("erased: {left}; a record is in `erasure`"));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn show_job(&self, preview: &JobPreview) -> Result<()> {
        if self.json && self.confirm.dry_run {
            output::say(serde_json::to_string(preview)?);
            return Ok(());
        }
        let JobPreview { job, job_type, status, holds, objects } = preview;
        notice(format_args!("job {job} of type {job_type}, {status}: {holds}"));
        for key in objects {
            notice(format_args!("file {key}"));
        }
        Ok(())
    }
}

impl Retention {
    /// The exit code is 1 if old jobs had to stay.
    pub(super) async fn drop_jobs(&self, owner: &Secret) -> Result<ExitCode> {
        let found = job_partitions_before(owner, self.before).await?;
        self.show_partitions(&found)?;
        let (held, free): (Vec<_>, Vec<_>) = found.iter().partition(|partition| partition.held_by.is_some());
        for partition in &held {
            stays(partition, partition.held_by.as_deref().unwrap_or_default());
        }
        let ended = |stayed: usize| if stayed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        if free.is_empty() {
            let month = self.before.format("%Y-%m");
            notice(format_args!("no partition of jobs from before {month} can be dropped"));
            return Ok(ended(held.len()));
        }
        let jobs: i64 = free.iter().map(|partition| partition.holds.jobs).sum();
        if !self.confirm.decide(&counted(jobs, "job", "jobs")).await? {
            return Ok(ExitCode::SUCCESS);
        }
        let bar = output::count_bar(free.len() as u64, "partition", "partitions");
        let (mut dropped, mut stayed) = (0_i64, held.len());
        for partition in &free {
            match drop_jobs(owner, partition.first_job, self.before, &self.reason).await {
                Ok(left) => dropped += left.jobs,
                Err(JobRemovalError::Held(why)) => {
                    stays(partition, &why.to_string());
                    stayed += 1;
                }
                Err(JobRemovalError::Store(error)) => {
                    return Err(error).with_context(|| format!("jobs from {}", partition.first_job));
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let dropped = counted(dropped, "job", "jobs");
        notice(format_args!("dropped: {dropped}; each partition left a record in `erasure`"));
        Ok(ended(stayed))
    }

    fn show_partitions(&self, found: &[JobPartition]) -> Result<()> {
        if self.json {
            for partition in found {
                output::say(serde_json::to_string(partition)?);
            }
            return Ok(());
        }
        let rows = found.iter().map(|partition| {
            [
                format!("{} to {}", partition.first_job, partition.last_job),
                partition.holds.jobs.to_string(),
                partition.holds.entries.to_string(),
                output::instant(partition.newest.timestamp()),
            ]
        });
        output::say(output::table(["numbers", "jobs", "entries", "newest entry, UTC"], rows));
        Ok(())
    }
}

fn stays(partition: &JobPartition, why: &str) {
    notice(format_args!("jobs {} to {} stay: {why}", partition.first_job, partition.last_job));
}
