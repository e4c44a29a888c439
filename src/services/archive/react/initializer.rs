//! The service `initializer`: makes the seed relays known, once.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use crate::base::RelayUrl;
use crate::config::Implementation;
use crate::lifecycle::{Cycle, Service, set_aside};
use crate::services::archive::command::RelayCommand;
use crate::services::archive::decide::refusal;
use crate::services::archive::metrics::InitializerMetrics;
use crate::services::archive::react::refusals;
use crate::services::archive::seeds::Seeds;
use crate::services::archive::{RelayAnswer, RelayJournal};
use crate::store;
use crate::store::append::Writer;

/// Relays offered at once; the writer puts them into few transactions.
const AT_ONCE: usize = 2_000;

/// Why the seeds could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum InitializerError {
    /// The seed file.
    #[error("the seed file cannot be read: {0}")]
    Seeds(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Enters seed relays.
#[derive(Debug)]
pub struct Initializer {
    /// Whose seeds.
    pub implementation: Implementation,
    /// The file's name in the implementation's `data/`, or an absolute path.
    pub seed_file: String,
    /// Where relays become known.
    pub relays: Writer<RelayJournal>,
    /// Where lines are counted.
    pub metrics: InitializerMetrics,
}

impl Service for Initializer {
    type Error = InitializerError;

    fn name(&self) -> &'static str {
        "initializer"
    }

    async fn cycle(&self, _drain: &CancellationToken) -> Result<Cycle, InitializerError> {
        let wrong = |error: &dyn std::error::Error| InitializerError::Seeds(error.to_string());
        let text = self.implementation.data_file(&self.seed_file).map_err(|e| wrong(&e))?;
        let seeds = Seeds::read(text.as_bytes()).map_err(|e| wrong(&e))?;
        for (line, reason) in &seeds.refused {
            tracing::warn!(file = self.seed_file, line, "{} line {line}: {reason}; skipped", self.seed_file);
        }
        let known = seeds.relays.len();
        // A seed that the database refuses is passed over: trying again cannot help, and the others are entered.
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
        Ok(Cycle::Done)
    }
}
