//! Authentication to the relay (NIP-42): at most once in a session, and only when the relay demands it.

use super::super::error::SyncError;
use super::Visit;

/// Progress of authentication (NIP-42) within a session. It is done at most once, and reopens the live
/// subscription at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authentication {
    NotDone,
    Done,
    DoneAndResubscribed,
}

impl Visit<'_> {
    /// Authenticates if that is why the relay refused. Returns true if the request may be repeated.
    pub(super) async fn may_authenticate(&mut self, why: &str) -> Result<bool, SyncError> {
        let may = self.crawl.settings.authenticate
            && self.authentication == Authentication::NotDone
            && why.starts_with("auth-required:")
            && self.session.auth_challenge().is_some();
        if may {
            self.authentication = Authentication::Done;
            self.session.authenticate(&self.crawl.parts.keys).await?;
        }
        Ok(may)
    }
}
