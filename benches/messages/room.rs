//! An instance that runs the room `messages` and nothing else that listens.

use std::net::{SocketAddr, TcpListener};

use super::support::instance::Instance;

/// No quota is to be what a bench measures, but counting against them is a part of it: hence not 0, which is none.
const AMPLE: [&str; 5] = [
    "services.messages.sender_messages_per_second=1000000",
    "services.messages.sender_messages_per_day=1000000000",
    "services.messages.sender_bytes_per_day=1000000000000",
    "services.messages.recipient_messages_max=1000000000",
    "services.messages.recipient_bytes_max=1000000000000",
];

/// The instance and where its room listens.
pub(crate) struct Room {
    pub(crate) instance: Instance,
    pub(crate) ws: SocketAddr,
    pub(crate) http: SocketAddr,
}

impl Room {
    pub(crate) async fn start(more: &[&str]) -> Self {
        let [ws, http] = free_addresses();
        let settings = settings(ws, http);
        let settings: Vec<&str> = settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let instance = Instance::start(&settings).await;
        println!("{}", instance.durability().await);
        Self { instance, ws, http }
    }
}

/// The settings of a process that runs the room on these addresses.
pub(crate) fn settings(ws: SocketAddr, http: SocketAddr) -> Vec<String> {
    let own = [
        "services.messages.enabled=true".to_owned(),
        format!("services.messages.ws_address={ws}"),
        format!("services.messages.http_address={http}"),
    ];
    own.into_iter().chain(AMPLE.map(str::to_owned)).collect()
}

/// Addresses that nobody listens on now.
pub(crate) fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let listeners = [(); N].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound"))
}
