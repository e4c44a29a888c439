//! Numbers for new jobs. A submission has its number before it is sent, so that it can be sent again after an
//! answer was lost.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_postgres::types::Type;

use crate::store::{Error, Pools};

/// Numbers drawn at a time. A process that ends leaves at most so many unused.
const DRAWN: i32 = 256;

/// The numbers that this process has drawn. Clones share them.
#[derive(Debug, Clone)]
pub struct JobNumbers {
    pools: Pools,
    drawn: Arc<Mutex<VecDeque<i64>>>,
}

impl JobNumbers {
    /// No numbers yet.
    #[must_use]
    pub fn new(pools: Pools) -> Self {
        Self { pools, drawn: Arc::default() }
    }

    /// The next number.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn next(&self) -> Result<i64, Error> {
        let mut drawn = self.drawn.lock().await;
        if let Some(number) = drawn.pop_front() {
            return Ok(number);
        }
        let client = self.pools.write.get().await?;
        let rows = client
            .query_typed(
                "-- draw_job_numbers\nSELECT * FROM quipu_draw_job_numbers($1)",
                &[(&DRAWN, Type::INT4)],
            )
            .await?;
        drawn.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
        drawn.pop_front().ok_or_else(|| Error::inconsistent("job_number", "no number was drawn"))
    }
}
