//! Hints to other processes save time and may get lost; they hold up nothing.

use std::time::Duration;

use quipu::store::{DatabaseUrls, Hints, PoolSizes, Pools};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::database::TestDatabase;
use crate::support::proxy::{Proxy, eventually};

/// Less than the grace of a stop, and more than the time for a hint.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_database_that_hangs_does_not_hold_up_the_end_of_hints() {
    let database = TestDatabase::new().await;
    let proxy = Proxy::before(&database.urls().write).await;
    let direct = Pools::open(&database.urls(), PoolSizes { write: 1, session: 1, read: 1 }).unwrap();
    let through = DatabaseUrls {
        write: proxy.url(&database.urls().write),
        session: proxy.url(&database.urls().write),
        ..database.urls()
    };
    let silent = Pools::open(&through, PoolSizes { write: 1, session: 1, read: 1 }).unwrap();
    let (hints, stop, mut tasks) = (Hints::default(), CancellationToken::new(), JoinSet::new());
    // A session that is connected and then hangs.
    let connected = Hints::default();
    tasks.spawn(connected.clone().send(silent.write.clone(), stop.clone()));
    connected.written();
    eventually("a hint was sent", || async { silent.write.status().available == 1 }).await;
    proxy.fall_silent();
    connected.written();
    eventually("the session is used", || async { silent.write.status().available == 0 }).await;
    // Sessions that hang before they are connected.
    tasks.spawn(hints.clone().receive(silent.session.clone(), stop.clone()));
    eventually("it connects", || async { silent.session.size() == 1 }).await;
    // A pool without a free session.
    let all = direct.write.get().await.unwrap();
    tasks.spawn(hints.clone().send(direct.write.clone(), stop.clone()));
    hints.written();
    eventually("it waits for a session", || async { direct.write.status().waiting == 1 }).await;
    stop.cancel();
    timeout(SOON, tasks.join_all()).await.expect("the tasks end");
    drop(all);
}
