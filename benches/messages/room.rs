//! An instance that runs the messages service and no other service that listens.

use std::net::SocketAddr;

use super::support::instance::Instance;

/// Quotas so high that none is reached. They are not 0, which would disable the counting that is a part of
/// the measured work.
pub(crate) const HIGH_QUOTAS: [&str; 6] = [
    "services.messages.sender_messages_per_second=1000000",
    "services.messages.sender_messages_per_day=1000000000",
    "services.messages.sender_bytes_per_day=1000000000000",
    "services.messages.recipient_messages_max=1000000000",
    "services.messages.recipient_bytes_max=1000000000000",
    "services.messages.acknowledgements_per_second=1000000",
];

/// The instance and the addresses of its service.
pub(crate) struct Room {
    pub(crate) instance: Instance,
    pub(crate) ws: SocketAddr,
    pub(crate) http: SocketAddr,
}

impl Room {
    pub(crate) async fn start(more: &[&str]) -> Self {
        let own = ["services.messages.enabled=true"];
        let settings: Vec<&str> = own.into_iter().chain(HIGH_QUOTAS).chain(more.iter().copied()).collect();
        let instance = Instance::start(&settings).await;
        instance.prepare_wal().await;
        println!("{}", instance.durability().await);
        let [ws, http] = ["messages", "messages-http"].map(|service| instance.address(service));
        Self { instance, ws, http }
    }
}
