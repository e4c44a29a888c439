//! Working rows of messages: devices that show themselves, where they go on reading, and the key of challenges.

use tokio_postgres::types::Type;

use crate::store::{Doors, Error};

/// A device of a recipient shows itself. Returns up to which number it has settled everything; `None` when the recipient has
/// `most` other devices that were seen within 30 days.
pub async fn register_device(
    doors: &Doors,
    recipient: &str,
    device: &str,
    most: i32,
) -> Result<Option<i64>, Error> {
    let client = doors.write.get().await?;
    let rows = client
        .query_typed(
            "SELECT quipu_show_message_device($1, $2, $3)",
            &[(&recipient, Type::TEXT), (&device, Type::TEXT), (&most, Type::INT4)],
        )
        .await?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// Moves the places of devices, (recipient, device), up to the first message that they have not settled.
pub async fn move_positions(doors: &Doors, devices: &[(&str, &str)]) -> Result<(), Error> {
    let recipients: Vec<&str> = devices.iter().map(|device| device.0).collect();
    let names: Vec<&str> = devices.iter().map(|device| device.1).collect();
    let client = doors.write.get().await?;
    client
        .query_typed(
            "SELECT quipu_move_message_positions($1, $2)",
            &[(&recipients, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)],
        )
        .await?;
    Ok(())
}

/// The key of challenges that all processes of this database use. `drawn` becomes it where there is none.
pub async fn challenge_key(doors: &Doors, drawn: [u8; 32]) -> Result<[u8; 32], Error> {
    let client = doors.write.get().await?;
    let rows = client
        .query_typed("SELECT quipu_message_challenge_key($1)", &[(&drawn.as_slice(), Type::BYTEA)])
        .await?;
    let key: Option<Vec<u8>> = rows.first().and_then(|row| row.get(0));
    key.and_then(|key| key.try_into().ok())
        .ok_or_else(|| Error::inconsistent("message_challenge_key", "the key has not 32 bytes"))
}
