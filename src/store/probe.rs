//! Whether PostgreSQL answers, asked on connections of its own: those of the pools may all be waiting for it.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::{Error, Server};
use crate::base::Secret;

/// Asks on one connection for each of some database URLs. The connections stay open between two questions.
#[derive(Debug)]
pub struct Probe {
    doors: Vec<Door>,
}

#[derive(Debug)]
struct Door {
    server: Server,
    client: Option<Client>,
}

/// The answer did not arrive in time.
#[derive(Debug, thiserror::Error)]
#[error("none within {} s", .0.as_secs())]
struct NoAnswer(Duration);

impl Probe {
    /// A probe that has not connected yet.
    ///
    /// # Errors
    /// [`Error::Url`] when a URL cannot be parsed.
    pub fn new<'a>(urls: impl IntoIterator<Item = &'a Secret>) -> Result<Self, Error> {
        let door = |url| Ok(Door { server: Server::parse(url)?, client: None });
        Ok(Self { doors: urls.into_iter().map(door).collect::<Result<_, Error>>()? })
    }

    /// Asks at all URLs at once, for at most `limit` in all. A connection that fails is replaced at the next
    /// call.
    ///
    /// # Errors
    /// The first error, in the order of the URLs, with role, database and address.
    pub async fn ask(&mut self, limit: Duration) -> Result<(), Error> {
        let answers = join_all(self.doors.iter_mut().map(|door| door.ask(limit))).await;
        answers.into_iter().collect()
    }
}

impl Door {
    async fn ask(&mut self, limit: Duration) -> Result<(), Error> {
        // It is put back after an answer only: a connection that did not answer is closed.
        let kept = self.client.take().filter(|client| !client.is_closed());
        let answer = async {
            let client = match kept {
                Some(client) => client,
                None => self.server.connect().await?,
            };
            client.query_typed("-- probe\nSELECT 1", &[]).await?;
            Ok(client)
        };
        let answer =
            timeout(limit, answer).await.unwrap_or_else(|_| Err(Error::unavailable(NoAnswer(limit))));
        self.client = Some(answer.map_err(|error| error.during("get an answer", self.server.target()))?);
        Ok(())
    }
}
