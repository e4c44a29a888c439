//! Section `services.messages`.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problems::{Problems, Section};
use crate::base::RelayUrl;

/// Upper limit of [`Messages::payload_bytes_max`].
const PAYLOAD_BYTES_MAX: usize = 1_048_576;

/// Upper limit of [`Messages::max_ttl_s`]: partitions for payloads are created at most 400 days ahead.
const TTL_S_MAX: u32 = 390 * 86_400;

/// Upper limit of the number of devices and of tokens per wayfarer.
const COUNT_MAX: u32 = 10_000;

/// Upper limit of [`Messages::sender_share_percent`].
const PERCENT_MAX: u32 = 100;

/// Section `services.messages`. Where a limit may be 0, 0 means no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Messages {
    /// Whether `quipu up` runs it.
    pub enabled: bool,
    /// Address of the WebSocket listener. Both listeners serve all paths, as the original implementation
    /// does. Without a value `127.0.0.1:4705`, or `127.0.0.1:8080` if `quipu run messages` runs nothing else.
    #[schemars(extend("format" = "address:port"))]
    pub ws_address: Option<SocketAddr>,
    /// Address of the HTTP listener with health and metrics. Without a value `127.0.0.1:4706`, or
    /// `127.0.0.1:8081` if `quipu run messages` runs nothing else.
    #[schemars(extend("format" = "address:port"))]
    pub http_address: Option<SocketAddr>,
    /// Name of this relay in `hello_ok`. Key proofs are made for it: beyond loopback addresses they are
    /// accepted only if it is the URL that clients connect to (`wss://…/ws`).
    pub relay_id: String,
    /// Whether a claimed identity is believed without proof. Without a value: only at loopback addresses, and
    /// only for requests that no proxy has forwarded.
    pub compat_unauthenticated: Option<bool>,
    /// Origins of web pages that may connect. A client that sends no `Origin` may always connect.
    pub allowed_origins: Vec<String>,
    /// Whether every origin may connect.
    pub dev_mode: bool,
    /// Longest time to live of a message; a longer request is shortened to it.
    #[schemars(range(max = TTL_S_MAX))]
    pub max_ttl_s: NonZeroU32,
    /// Interval between two sweeps. A sweep drops expired payloads and creates the partitions of
    /// the next hours.
    pub sweep_interval_s: NonZeroU32,
    /// Longest payload, after decoding. A longer one is refused.
    #[schemars(range(max = PAYLOAD_BYTES_MAX))]
    pub payload_bytes_max: NonZeroUsize,
    /// Messages per second that one sender may send, with bursts of five seconds' worth.
    pub sender_messages_per_second: u32,
    /// Messages that one sender may send within 24 hours. Several processes may together exceed a sender's
    /// limits by what they accept in 30 seconds.
    pub sender_messages_per_day: u64,
    /// Bytes that one sender may send within 24 hours.
    pub sender_bytes_per_day: u64,
    /// Messages that may wait for one recipient, neither acknowledged nor expired.
    pub recipient_messages_max: u64,
    /// Bytes that may wait for one recipient.
    pub recipient_bytes_max: u64,
    /// Share of `recipient_messages_max` and `recipient_bytes_max` that one sender may fill.
    #[schemars(range(max = PERCENT_MAX))]
    pub sender_share_percent: NonZeroU32,
    /// Devices of one wayfarer that were seen within 30 days. A further device is refused.
    #[schemars(range(max = COUNT_MAX))]
    pub devices_per_wayfarer_max: NonZeroU32,
    /// Acknowledgements per second of one wayfarer, with bursts of five seconds' worth.
    pub acknowledgements_per_second: u32,
    /// Tokens that one wayfarer may get by proofs and have at the same time; each is valid for a day.
    #[schemars(range(max = COUNT_MAX))]
    pub tokens_per_wayfarer_max: NonZeroU32,
    /// Proofs of identity per minute: of one wayfarer at `/v1/tokens`, and of one address (for IPv6 of one
    /// /64) there and on sockets. Programs on this machine that connect without a proxy are not counted;
    /// clients of a proxy that `http.trusted_proxies` does not list are counted together.
    pub proofs_per_minute: u32,
    /// Connections of clients at the same time.
    pub connections_max: NonZeroUsize,
    /// Connections of one address at the same time; loopback addresses are not counted.
    pub connections_per_address_max: NonZeroUsize,
    /// Interval between two pings. A client that sends nothing for twice as long is disconnected.
    pub ping_interval_s: NonZeroU32,
    /// Time within which a client must prove its identity; afterwards an unproven connection is closed.
    pub hello_timeout_s: NonZeroU32,
    /// Time that a client may leave sent data unread.
    pub write_timeout_s: NonZeroU32,
}

impl Default for Messages {
    fn default() -> Self {
        Self {
            enabled: true,
            ws_address: None,
            http_address: None,
            relay_id: "quipu".to_owned(),
            compat_unauthenticated: None,
            allowed_origins: Vec::new(),
            dev_mode: false,
            max_ttl_s: nonzero!(NonZeroU32, 604_800),
            sweep_interval_s: nonzero!(NonZeroU32, 30),
            payload_bytes_max: nonzero!(NonZeroUsize, 65_536),
            sender_messages_per_second: 1_000,
            sender_messages_per_day: 1_000_000,
            sender_bytes_per_day: 10_737_418_240,
            recipient_messages_max: 200_000,
            recipient_bytes_max: 1_073_741_824,
            sender_share_percent: nonzero!(NonZeroU32, 10),
            devices_per_wayfarer_max: nonzero!(NonZeroU32, 64),
            acknowledgements_per_second: 10_000,
            tokens_per_wayfarer_max: nonzero!(NonZeroU32, 32),
            proofs_per_minute: 30,
            connections_max: nonzero!(NonZeroUsize, 20_000),
            connections_per_address_max: nonzero!(NonZeroUsize, 1_000),
            ping_interval_s: nonzero!(NonZeroU32, 30),
            hello_timeout_s: nonzero!(NonZeroU32, 10),
            write_timeout_s: nonzero!(NonZeroU32, 20),
        }
    }
}

impl Messages {
    /// Whether a claimed identity is believed without proof. Without a setting only at a loopback listener,
    /// and only for a client that connects directly, without a proxy.
    #[must_use]
    pub fn trusts_claims(&self, listener: SocketAddr, is_loopback_direct: bool) -> bool {
        let is_local = listener.ip().to_canonical().is_loopback() && is_loopback_direct;
        self.compat_unauthenticated.unwrap_or(is_local)
    }

    /// Settings that are valid but probably a mistake.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let is_beyond_loopback = |address: Option<SocketAddr>| {
            address.is_some_and(|address| !address.ip().to_canonical().is_loopback())
        };
        let mut warnings = Vec::new();
        let is_reached = is_beyond_loopback(self.ws_address) || is_beyond_loopback(self.http_address);
        if self.enabled && is_reached && RelayUrl::parse(&self.relay_id).is_err() {
            warnings.push(format!(
                "services.messages.relay_id: `{}` is no URL: beyond loopback addresses key proofs are refused, bearer tokens \
                 work. Set it to the URL that clients connect to (wss://…/ws)",
                self.relay_id
            ));
        }
        warnings
    }
}

impl Section for Messages {
    fn problems(&self, problems: &mut Problems<'_>) {
        let mut check = |is_good: bool, key: &str, reason: String| {
            if !is_good {
                problems.refuse(key, reason);
            }
        };
        let bytes = self.payload_bytes_max.get();
        check(
            bytes <= PAYLOAD_BYTES_MAX,
            "payload_bytes_max",
            format!("{bytes}: at most {PAYLOAD_BYTES_MAX}"),
        );
        let seconds = self.max_ttl_s.get();
        check(
            seconds <= TTL_S_MAX,
            "max_ttl_s",
            format!("{seconds}: at most {TTL_S_MAX}, which are 390 days"),
        );
        for (key, value, most) in [
            ("sender_share_percent", self.sender_share_percent, PERCENT_MAX),
            ("devices_per_wayfarer_max", self.devices_per_wayfarer_max, COUNT_MAX),
            ("tokens_per_wayfarer_max", self.tokens_per_wayfarer_max, COUNT_MAX),
        ] {
            check(value.get() <= most, key, format!("{value}: at most {most}"));
        }
        let is_plain = !self.relay_id.is_empty() && !self.relay_id.contains(char::is_control);
        check(is_plain, "relay_id", "must not be empty or contain control characters".to_owned());
    }
}
