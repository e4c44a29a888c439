//! Writes the working tables of messages: devices, their read cursors, and the key of challenges.

use tokio_postgres::types::Type;

use crate::store::{Error, Pools};

/// Registers a device of a recipient, or marks it as seen. Returns the number up to which every message is
/// acknowledged by the device or expired; `None` when `devices_max` other devices of the recipient were seen
/// within 30 days.
pub async fn register_device(
    pools: &Pools,
    recipient: &str,
    device: &str,
    devices_max: i32,
) -> Result<Option<i64>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- register_device\nSELECT quipu_show_message_device($1, $2, $3)",
            &[(&recipient, Type::TEXT), (&device, Type::TEXT), (&devices_max, Type::INT4)],
        )
        .await?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// Moves the read cursors of devices, given as (recipient, device), up to the first message that is neither
/// acknowledged nor expired.
pub async fn move_positions(pools: &Pools, devices: &[(&str, &str)]) -> Result<(), Error> {
    let recipients: Vec<&str> = devices.iter().map(|device| device.0).collect();
    let names: Vec<&str> = devices.iter().map(|device| device.1).collect();
    let client = pools.write.get().await?;
    client
        .query_typed(
            "-- move_positions\nSELECT quipu_move_message_positions($1, $2)",
            &[(&recipients, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)],
        )
        .await?;
    Ok(())
}

/// The HMAC key of challenges and hints that all processes of this database share. If the database has none yet,
/// `candidate` is stored.
pub async fn challenge_key(pools: &Pools, candidate: [u8; 32]) -> Result<[u8; 32], Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- challenge_key\nSELECT quipu_message_challenge_key($1)",
            &[(&candidate.as_slice(), Type::BYTEA)],
        )
        .await?;
    let key: Option<Vec<u8>> = rows.first().and_then(|row| row.get(0));
    key.and_then(|key| key.try_into().ok())
        .ok_or_else(|| Error::inconsistent("message_challenge_key", "the key does not have 32 bytes"))
}
