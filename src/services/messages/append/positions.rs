//! Where devices go on reading.

use tokio_postgres::types::Type;

use crate::store::{Doors, Error};

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
