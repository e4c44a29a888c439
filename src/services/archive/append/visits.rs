//! Maintains `relay_visits`: which relays the operator waits for, and how the latest session with each relay
//! went.

use tokio_postgres::types::{ToSql, Type};

use crate::store::{Error, Pools, Relay};

// These rows are not facts, so no commit here needs to wait for the disk.

const ASK: &str =
    "-- ask_for_relay\nSELECT quipu_ask_for(ARRAY[$1]) FROM set_config('synchronous_commit', 'off', true)";

const BEGUN: &str = "-- visit_begun
    INSERT INTO relay_visits (relay, began_at)
    SELECT $1, clock_timestamp() FROM set_config('synchronous_commit', 'off', true)
    ON CONFLICT (relay) DO UPDATE SET began_at = excluded.began_at, outcome = NULL";

const LEFT: &str = "-- visit_windows_left
    UPDATE relay_visits SET open_since = $2
    FROM set_config('synchronous_commit', 'off', true) WHERE relay = $1";

const CAUGHT_UP: &str = "-- visit_caught_up
    UPDATE relay_visits SET caught_up_at = clock_timestamp(), open_since = NULL
    FROM set_config('synchronous_commit', 'off', true) WHERE relay = $1";

const ENDED: &str = "-- visit_ended
    UPDATE relay_visits SET outcome = $2
    FROM set_config('synchronous_commit', 'off', true) WHERE relay = $1";

async fn execute(pools: &Pools, sql: &str, arguments: &[(&(dyn ToSql + Sync), Type)]) -> Result<(), Error> {
    let client = pools.write.get().await?;
    client.execute_typed(sql, arguments).await?;
    Ok(())
}

/// Requests a session with the relay before all others, as adding a relay does.
///
/// # Errors
/// Errors of PostgreSQL.
pub async fn ask(pools: &Pools, relay: Relay) -> Result<(), Error> {
    execute(pools, ASK, &[(&relay.0, Type::INT4)]).await
}

/// Records that a session with the relay begins.
pub(in crate::services::archive) async fn begun(pools: &Pools, relay: Relay) -> Result<(), Error> {
    execute(pools, BEGUN, &[(&relay.0, Type::INT4)]).await
}

/// Records that the relay has windows left to read; the oldest begins at `since`, in unix seconds.
pub(in crate::services::archive) async fn windows_left(
    pools: &Pools,
    relay: Relay,
    since: i64,
) -> Result<(), Error> {
    execute(pools, LEFT, &[(&relay.0, Type::INT4), (&since, Type::INT8)]).await
}

/// Records that every open window of the relay was walked.
pub(in crate::services::archive) async fn caught_up(pools: &Pools, relay: Relay) -> Result<(), Error> {
    execute(pools, CAUGHT_UP, &[(&relay.0, Type::INT4)]).await
}

/// Records that the session with the relay ended. `outcome` is `ok`, `stopped` or the reason of a failure, as
/// in the metrics.
pub(in crate::services::archive) async fn ended(
    pools: &Pools,
    relay: Relay,
    outcome: &str,
) -> Result<(), Error> {
    execute(pools, ENDED, &[(&relay.0, Type::INT4), (&outcome, Type::TEXT)]).await
}
