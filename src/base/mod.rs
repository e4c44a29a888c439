//! Domain types without I/O and without async.
//!
//! **Architecture Invariant:** `base` imports nothing else of Quipu and never reads the clock
//! outside [`SystemClock`].

mod causes;
mod clock;
mod counted;
mod job_limits;
mod network;
pub mod nostr_event;
mod relay_url;
mod secret;
mod sha256;
mod webhook_keys;
mod words;

pub use causes::with_causes;
pub use clock::{Clock, SystemClock};
pub use counted::{counted, noun};
pub use job_limits::{JOB_ATTEMPTS_MAX, JOB_LEASE_S_MAX, JOB_LEASE_S_MIN};
pub use network::Network;
pub use nostr_event::{NostrEvent, Refusals, VerifiedEvent};
pub use relay_url::{RELAY_URL_BYTES_MAX, RelayUrl, RelayUrlError, is_local_ip, is_local_name};
pub use secret::Secret;
pub use sha256::{NotSha256, Sha256};
pub use webhook_keys::{NotWebhookKeys, WebhookKeys};
pub(crate) use words::words;
