//! `quipu blobs ban` and `unban`: what is neither stored nor served.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::adopt::ACTOR;
use super::opened::Opened;
use crate::base::Sha256;
use crate::cli::{Context, output};
use crate::services::blossom::command::BlobCommand;

/// Refuse a blob from now on.
#[derive(Debug, Args)]
pub(in crate::cli) struct Ban {
    /// The SHA-256 of the blob. It need not be known here.
    #[arg(value_name = "SHA256")]
    sha256: Sha256,
    /// The reason, which clients see.
    #[arg(long, value_name = "TEXT")]
    why: String,
}

/// End the ban of a blob. An erased one stays banned.
#[derive(Debug, Args)]
pub(in crate::cli) struct Unban {
    /// The SHA-256 of the blob.
    #[arg(value_name = "SHA256")]
    sha256: Sha256,
}

impl Ban {
    pub(super) async fn run(self, context: Context) -> Result<ExitCode> {
        let Self { sha256, why } = self;
        append(context, BlobCommand::Ban { sha256, why, actor: ACTOR.to_owned() }).await?;
        output::list(format_args!("{sha256}  banned"))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Unban {
    pub(super) async fn run(self, context: Context) -> Result<ExitCode> {
        let Self { sha256 } = self;
        append(context, BlobCommand::Unban { sha256, actor: ACTOR.to_owned() }).await?;
        output::list(format_args!("{sha256}  not banned any longer, unless it was erased"))?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn append(context: Context, command: BlobCommand) -> Result<()> {
    let opened = Opened::new(context).await?;
    let appended = opened.react.journal.append(command).await;
    opened.close().await;
    appended?;
    Ok(())
}
