//! The service `initializer`: adds the relays of the seed file, once.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use crate::base::RelayUrl;
use crate::config::Implementation;
use crate::lifecycle::{CycleOutcome, Service, set_aside};
use crate::services::archive::command::RelayCommand;
use crate::services::archive::decide::refusal;
use crate::services::archive::metrics::InitializerMetrics;
use crate::services::archive::react::refusals;
use crate::services::archive::seeds::Seeds;
use crate::services::archive::{RelayAnswer, RelayJournal};
use crate::store;
use crate::store::append::Writer;

/// Relays handed to the writer at once; it combines them into few transactions.
const AT_ONCE: usize = 2_000;

/// Why the seeds could not be added.
#[derive(Debug, thiserror::Error)]
pub enum InitializerError {
    /// The seed file cannot be read.
    #[error("the seed file cannot be read: {0}")]
    Seeds(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The service `initializer`.
#[derive(Debug)]
pub struct Initializer {
    /// The implementation whose seed file is read.
    pub implementation: Implementation,
    /// The file's name in the implementation's `data/`, or an absolute path.
    pub seed_file: String,
    /// Writer of `relay_log`.
    pub relays: Writer<RelayJournal>,
    /// Metrics of the initializer.
    pub metrics: InitializerMetrics,
}

impl Service for Initializer {
    type Error = InitializerError;

    fn name(&self) -> &'static str {
        "initializer"
    }

    async fn cycle(&self, _drain: &CancellationToken) -> Result<CycleOutcome, InitializerError> {
        let unreadable = |error: &dyn std::error::Error| InitializerError::Seeds(error.to_string());
        let text = self.implementation.data_file(&self.seed_file).map_err(|e| unreadable(&e))?;
        let seeds = Seeds::read(text.as_bytes()).map_err(|e| unreadable(&e))?;
        for (line, reason) in &seeds.refused {
            tracing::warn!(file = self.seed_file, line, "{} line {line}: {reason}; skipped", self.seed_file);
        }
        let known = seeds.relays.len();
        // A seed that the database refuses is skipped: a retry cannot help, and the other seeds must be
        // added.
        let add = |url: RelayUrl| async move {
            let reason = refusal(&url, false);
            match self.relays.append(RelayCommand::Add { url: url.clone(), source: "seed" }).await {
                Err(store::Error::Data(error)) => {
                    set_aside("initializer_seed", url.as_str(), None, &error);
                    Ok(None)
                }
                answer => Ok::<_, store::Error>(Some((answer?, reason))),
            }
        };
        let answers: Vec<_> =
            stream::iter(seeds.relays).map(add).buffer_unordered(AT_ONCE).try_collect().await?;
        let (mut new, mut entered, mut refused) = (0, 0, Vec::new());
        for (answer, reason) in answers.into_iter().flatten() {
            let RelayAnswer::Known { relay, is_new } = answer else { continue };
            entered += 1;
            new += usize::from(is_new);
            refused.extend(reason.map(|reason| (relay, reason)));
        }
        let unusable = known - entered;
        for (outcome, lines) in [
            ("new", new),
            ("known", entered - new),
            ("repeated", seeds.duplicates),
            ("malformed", seeds.refused.len()),
            ("refused_by_database", unusable),
            ("private_address", refused.len()),
        ] {
            self.metrics.seeds(outcome, lines);
        }
        tracing::info!(
            "{}: {known} relays, {new} of them new; {} at private addresses are not dialled unless you add them; \
             {} repeated and {} bad lines skipped",
            self.seed_file,
            refused.len(),
            seeds.duplicates,
            seeds.refused.len()
        );
        refusals::record(&self.relays, refused).await?;
        Ok(CycleOutcome::Done)
    }
}
