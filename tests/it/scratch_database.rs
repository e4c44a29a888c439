//! Stands in for the shared test database, with the same names: a clone of `quipu_template` on a server whose superuser URL
//! is in `QUIPU_TEST_SUPERUSER_URL`.

use std::sync::atomic::{AtomicU32, Ordering};

use quipu::base::Secret;
use quipu::store::{DatabaseUrls, DoorSizes, Doors, owner};
use tokio_postgres::Client;

static NUMBER: AtomicU32 = AtomicU32::new(1);

pub(crate) struct TestDatabase {
    url: String,
}

impl TestDatabase {
    pub(crate) async fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "goes with this stand-in")]
        let server =
            std::env::var("QUIPU_TEST_SUPERUSER_URL").expect("QUIPU_TEST_SUPERUSER_URL names a server");
        let name = format!("scratch_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let client = owner::connect(&Secret::new(server.clone())).await.unwrap();
        client
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE quipu_template OWNER quipu_owner"))
            .await
            .unwrap();
        let (server, _) = server.rsplit_once('/').unwrap();
        Self { url: format!("{server}/{name}") }
    }

    pub(crate) fn urls(&self) -> DatabaseUrls {
        let url = |role: &str| Secret::new(self.url.replace("//postgres@", &format!("//{role}@")));
        DatabaseUrls {
            write: url("quipu"),
            session: url("quipu_session"),
            read: url("quipu_session"),
            owner: url("quipu_owner"),
        }
    }

    pub(crate) fn doors(&self) -> Doors {
        Doors::open(&self.urls(), DoorSizes { write: 4, session: 3, read: 2 }).unwrap()
    }

    pub(crate) async fn owner(&self) -> Client {
        owner::connect(&self.urls().owner).await.unwrap()
    }
}
