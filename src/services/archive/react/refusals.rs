//! Records relays that are never dialled, with the reason that listings show.

use futures_util::{StreamExt as _, TryStreamExt as _, future::ready, stream};
use serde_json::json;

use crate::services::archive::RelayJournal;
use crate::services::archive::command::RelayCommand;
use crate::store::append::Writer;
use crate::store::{Error, Relay};

/// Refusals handed to the writer at once; it combines them into few transactions.
const AT_ONCE: usize = 1_000;

/// Records refusals, each with its reason. Has no effect for a refusal that is recorded already, or for a
/// relay that the operator named.
pub(super) async fn record(
    relays: &Writer<RelayJournal>,
    refused: Vec<(Relay, &'static str)>,
) -> Result<(), Error> {
    let command = |(relay, reason): (Relay, &'static str)| RelayCommand::Refuse {
        relay,
        detail: json!({ "reason": reason }),
    };
    let commands: Vec<RelayCommand> = refused.into_iter().map(command).collect();
    let append = |command| relays.append(command);
    let recorded = stream::iter(commands).map(append).buffer_unordered(AT_ONCE);
    recorded.try_for_each(|_| ready(Ok(()))).await
}
