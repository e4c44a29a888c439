//! An instance that runs the room `messages` and nothing else that listens.

use std::net::SocketAddr;

use super::support::instance::Instance;

/// No quota is to be what a bench measures, but counting against them is a part of it: hence not 0, which is none.
pub(crate) const AMPLE: [&str; 6] = [
    "services.messages.sender_messages_per_second=1000000",
    "services.messages.sender_messages_per_day=1000000000",
    "services.messages.sender_bytes_per_day=1000000000000",
    "services.messages.recipient_messages_max=1000000000",
    "services.messages.recipient_bytes_max=1000000000000",
    "services.messages.acknowledgements_per_second=1000000",
];

/// The instance and where its room listens.
pub(crate) struct Room {
    pub(crate) instance: Instance,
    pub(crate) ws: SocketAddr,
    pub(crate) http: SocketAddr,
}

impl Room {
    pub(crate) async fn start(more: &[&str]) -> Self {
        let own = ["services.messages.enabled=true"];
        let settings: Vec<&str> = own.into_iter().chain(AMPLE).chain(more.iter().copied()).collect();
        let instance = Instance::start(&settings).await;
        instance.prepare_wal().await;
        println!("{}", instance.durability().await);
        let [ws, http] = ["messages", "messages-http"].map(|service| instance.address(service));
        Self { instance, ws, http }
    }
}
