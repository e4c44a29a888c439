//! The import rules as data. A module imports only from lower levels, and on its own level only the listed
//! exceptions.

/// Top-level modules with their levels.
pub(super) const LEVELS: &[(&str, u8)] = &[
    ("base", 0),
    ("config", 1),
    ("telemetry", 1),
    ("lifecycle", 1),
    ("store", 2),
    ("net", 2),
    ("http", 2),
    ("sample", 2),
    ("room", 3),
    ("services", 4),
    ("app", 5),
    ("cli", 6),
    ("main", 7),
];

/// From, to, reason.
pub(super) const SAME_LEVEL: &[(&str, &str, &str)] = &[
    ("telemetry", "config", "logging is set up from its own section of the settings"),
    ("lifecycle", "telemetry", "its metrics are described as all others are"),
];

/// What a part of a room may import.
pub(super) struct Part {
    pub(super) name: &'static str,
    /// Modules outside of the rooms, or single items of them.
    pub(super) below: &'static [&'static str],
    /// Other parts of its own room.
    pub(super) own: &'static [&'static str],
    /// Whether it may import the entry types (`event`) of other rooms.
    pub(super) other_rooms_events: bool,
}

const ALL_BELOW: &[&str] = &["base", "config", "telemetry", "lifecycle", "store", "net", "http", "room"];
const ALL_OWN: &[&str] = &[
    "mod", "command", "event", "decide", "append", "project", "read", "upstream", "edge", "react", "metrics",
    "seeds", "service",
];

/// The parts of a room; a room has no other files. `mod` stands for the constants that the room's `mod.rs`
/// defines. A re-exported name counts as the part that defines it.
pub(super) const PARTS: &[Part] = &[
    Part { name: "event", below: &["base"], own: &[], other_rooms_events: false },
    // `store::Relay` is a plain value: the number of a relay in rows.
    Part { name: "command", below: &["base", "store::Relay"], own: &["event"], other_rooms_events: false },
    Part { name: "decide", below: &["base"], own: &["command", "event"], other_rooms_events: false },
    // `store::labels` are the labels of metrics about tables, leases and roles: the store knows their values.
    Part {
        name: "metrics",
        below: &["base", "telemetry", "store::labels"],
        own: &["command", "event"],
        other_rooms_events: false,
    },
    Part {
        name: "append",
        below: &["base", "store", "telemetry"],
        own: &["mod", "command", "event", "decide", "metrics"],
        other_rooms_events: false,
    },
    Part {
        name: "project",
        below: &["base", "store"],
        own: &["mod", "event", "read"],
        other_rooms_events: true,
    },
    Part {
        name: "read",
        below: &["base", "store"],
        own: &["mod", "command", "event", "decide"],
        other_rooms_events: true,
    },
    // Only in the room of blobs: what one upstream can be asked. The edge waits for it while a client waits, and the
    // loops use the same connections and the same circuit breakers.
    Part {
        name: "upstream",
        below: &["base", "config", "lifecycle", "telemetry", "net"],
        own: &["command", "event", "decide", "metrics"],
        other_rooms_events: false,
    },
    // Objects are files of clients, which the edge receives, hands out and signs URLs for. A person who logs in waits
    // while the edge asks the provider. Nothing else of `net`.
    Part {
        name: "edge",
        below: &["base", "config", "telemetry", "lifecycle", "store", "http", "net::objects", "net::oidc"],
        own: &["mod", "command", "event", "decide", "append", "read", "metrics", "upstream"],
        other_rooms_events: true,
    },
    Part {
        name: "react",
        below: &["base", "config", "telemetry", "lifecycle", "store", "net"],
        own: &["mod", "command", "event", "decide", "append", "read", "metrics", "upstream", "seeds"],
        other_rooms_events: true,
    },
    // Only in the archive: seed files are text, parsed by the initializer and by `quipu relays add`.
    Part { name: "seeds", below: &["base"], own: &[], other_rooms_events: false },
    // The room's description for the composition root: it puts all of the room together.
    Part { name: "service", below: ALL_BELOW, own: ALL_OWN, other_rooms_events: false },
    Part { name: "mod", below: ALL_BELOW, own: ALL_OWN, other_rooms_events: true },
];

/// Names of other crates that only some modules may use, with the reason.
pub(super) struct Reserved {
    pub(super) names: &'static [&'static str],
    pub(super) allowed: &'static [&'static str],
    pub(super) reason: &'static str,
}

pub(super) const RESERVED: &[Reserved] = &[
    Reserved {
        names: &[
            "tokio_postgres::connect",
            "tokio_postgres::Config",
            "tokio_postgres::NoTls",
            "deadpool_postgres",
            "sqlx::postgres::PgPoolOptions",
            "sqlx::postgres::PgConnectOptions",
            "sqlx::postgres::PgConnection",
            "sqlx::postgres::PgListener",
            "sqlx::pool::PoolOptions",
            "sqlx::PgConnection",
            "sqlx::Connection",
        ],
        allowed: &["store"],
        reason: "only `store` opens connections to the database",
    },
    Reserved {
        names: &["tokio_socks", "reqwest", "hickory_resolver", "object_store", "openidconnect"],
        allowed: &["net"],
        reason: "only `net` opens connections to other machines",
    },
    Reserved {
        names: &["tokio_tungstenite"],
        allowed: &["net", "http"],
        reason: "`net` opens WebSockets to other machines, `http` accepts those of clients",
    },
    Reserved {
        names: &["axum::Router", "axum::routing", "axum::serve", "hyper", "hyper_util", "tower"],
        allowed: &["http"],
        reason: "only `http` serves: a route without the guard, or without an entry in the list of endpoints, cannot be made",
    },
    Reserved {
        names: &["tokio_rustls"],
        allowed: &["net", "store"],
        reason: "only `net` and the connections to PostgreSQL use TLS",
    },
    Reserved {
        names: &["rusqlite"],
        allowed: &["cli"],
        reason: "SQLite is read by the import of BlobForge's database alone",
    },
    Reserved { names: &["nostr_relay_builder"], allowed: &["sample"], reason: "only `sample` runs a relay" },
    Reserved {
        names: &["anyhow"],
        allowed: &["app", "cli", "main"],
        reason: "a library module reports errors by type",
    },
];

/// Types whose `connect…` functions open a database connection, however they were imported.
pub(super) const POOLS: &[&str] = &["PgPool", "PgConnection", "PgListener"];

/// The parts that only compute: no async, and none of these names.
pub(super) const PURE_PARTS: &[&str] = &["command", "event", "decide"];
pub(super) const IMPURE: &[&str] = &[
    "tokio",
    "tokio_util",
    "futures_util",
    "tokio_postgres",
    "deadpool_postgres",
    "sqlx",
    "axum",
    "tokio_tungstenite",
    "tokio_socks",
    "tokio_rustls",
    "reqwest",
    "hickory_resolver",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
];
/// In addition, rules receive time and randomness as arguments. Does not apply to `base`, which defines the
/// clock.
pub(super) const UNFORESEEN: &[&str] =
    &["std::time::Instant", "std::time::SystemTime", "rand", "rand_chacha", "nostr_sdk::Timestamp::now"];

/// Path endings that `src` must not contain.
pub(super) const NOWHERE: &[(&[&str], &str)] = &[
    (&["unbounded_channel"], "every queue has a bound"),
    (&["mpsc", "unbounded"], "every queue has a bound"),
    (&["std", "sync", "mpsc", "channel"], "every queue has a bound"),
    (&["thread", "sleep"], "a sleeping thread blocks all tasks of its worker; use `tokio::time::sleep`"),
    (&["Option", "unwrap"], "`expect(\"why it cannot fail\")` or a type"),
    (&["Result", "unwrap"], "`expect(\"why it cannot fail\")` or a type"),
];

/// Macros that `src` must not call.
pub(super) const NO_MACROS: &[&str] = &["todo", "dbg", "unimplemented"];

/// Module names that say nothing about the content.
pub(super) const NO_NAMES: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "manager", "managers", "types", "models"];

/// Longest file outside tests, in lines.
pub(super) const LINES_MAX: usize = 400;
