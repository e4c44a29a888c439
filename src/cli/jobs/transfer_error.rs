//! Why a file of a job was not transferred.

use thiserror::Error;

use super::client::Trouble;
use crate::net::FetchError;

/// Longest file that is downloaded, bytes.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 40;

/// Why a file was not transferred.
#[derive(Debug, Error)]
pub(super) enum TransferError {
    #[error(transparent)]
    Server(#[from] Trouble),
    #[error("the file breaks off: {0}")]
    Broken(#[from] FetchError),
    #[error("the file: {0}")]
    File(#[from] std::io::Error),
    #[error("the server names a URL that cannot be used: {0}")]
    Url(#[from] url::ParseError),
    #[error("the server's answer has no {0}")]
    Missing(&'static str),
    #[error("the server asks for the header {0:?}, which this version does not send")]
    Header(String),
    #[error("the file has the SHA-256 {found}, and the job says {stated}")]
    OtherContent { found: String, stated: String },
    #[error("`git lfs smudge` does not give the file that the pointer names (exit code {0})")]
    Lfs(i32),
    #[error("the file has more than {FILE_BYTES_MAX} bytes")]
    TooLong,
}

impl TransferError {
    /// Whether the same transfer may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Server(trouble) => trouble.is_transient(),
            Self::Broken(_) => true,
            _ => false,
        }
    }

    /// Whether the server or the storage has refused it for good.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Server(trouble) if trouble.refusal().is_some() && !trouble.is_transient())
    }

    /// The request that failed, if one did.
    pub(super) fn trouble(&self) -> Option<&Trouble> {
        match self {
            Self::Server(trouble) => Some(trouble),
            _ => None,
        }
    }
}
