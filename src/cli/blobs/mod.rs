//! `quipu blobs`: a client of Blossom servers, and the operator's view of copies.

mod adopt;
mod ban;
mod header;
mod list;
mod opened;
mod server;
mod status;
mod upload;
mod whereabouts;
mod work;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::archive::view::View;
use super::{Context, until_signal};

/// Upload and list blobs; show, prove and repair their copies; follow keys.
#[derive(Debug, Subcommand)]
pub(super) enum Blobs {
    /// Show how many blobs are kept, and their copies at each upstream.
    Status(View),
    /// Show where the copies of a blob are, who owns it, and what happened to it.
    Where(whereabouts::Where),
    /// Prove copies now: all, or those of some blobs. The exit code is 1 if any is lost.
    Verify(work::Verify),
    /// Copy blobs that have too few copies now, as the service does by itself.
    Repair(work::Repair),
    /// Copy every kept blob to every upstream, or to one that you name.
    Equalize(work::Equalize),
    /// Follow keys: the blobs that their archived events refer to are kept here from now on. Without a key: list those
    /// that are followed, and what could not be found.
    Adopt(adopt::Adopt),
    /// Refuse a blob: it is neither stored nor served any more.
    Ban(ban::Ban),
    /// End the ban of a blob.
    Unban(ban::Unban),
    /// Print the header that authorizes a request to a Blossom server.
    AuthHeader(header::AuthHeader),
    /// Upload files to a Blossom server.
    Upload(upload::Upload),
    /// Have a Blossom server copy blobs from URLs.
    Mirror(upload::Mirror),
    /// List the blobs of a key on a Blossom server.
    List(list::List),
}

impl Blobs {
    pub(super) async fn run(self, context: Context) -> Result<ExitCode> {
        match self {
            Self::Status(view) => status::run(&context, view).await,
            Self::Where(place) => until_signal(place.run(&context)).await,
            Self::Verify(verify) => until_signal(verify.run(context)).await,
            Self::Repair(repair) => until_signal(repair.run(context)).await,
            Self::Equalize(equalize) => until_signal(equalize.run(context)).await,
            Self::Adopt(adopt) => until_signal(adopt.run(context)).await,
            Self::Ban(ban) => until_signal(ban.run(context)).await,
            Self::Unban(unban) => until_signal(unban.run(context)).await,
            Self::AuthHeader(header) => header.run(&context),
            Self::Upload(upload) => until_signal(upload.run(&context)).await,
            Self::Mirror(mirror) => until_signal(mirror.run(&context)).await,
            Self::List(list) => until_signal(list.run(&context)).await,
        }
    }
}
