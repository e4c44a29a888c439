//! An instance that runs the room of blobs.

use std::net::SocketAddr;

use super::support::instance::Instance;
use super::upstream::Upstream;

/// Settings of every part: no limits that a load would reach.
const SETTINGS: [&str; 5] = [
    "services.blossom.enabled=true",
    "services.blossom.uploads_per_minute=0",
    "services.blossom.lookups_per_minute=0",
    "services.blossom.uploads_max=64",
    "services.blossom.prove_after_days=365",
];

pub(crate) struct Room {
    pub(crate) instance: Instance,
    /// Address of the listener.
    pub(crate) http: SocketAddr,
    /// The setting that names the upstreams, for commands.
    pub(crate) upstreams: String,
}

impl Room {
    /// Starts it in front of these upstreams; with none it has the built-in store.
    pub(crate) async fn start(upstreams: &[Upstream], more: &[&str]) -> Self {
        let list: Vec<String> =
            upstreams.iter().map(|upstream| format!("{{url: \"{}\"}}", upstream.url())).collect();
        let list = format!("services.blossom.upstreams=[{}]", list.join(", "));
        let mut settings: Vec<&str> = SETTINGS.to_vec();
        settings.push(&list);
        settings.extend(more);
        let instance = Instance::start(&settings).await;
        println!("{}", instance.durability().await);
        let http = instance.address("blossom");
        Self { instance, http, upstreams: list }
    }
}
