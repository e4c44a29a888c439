//! The ports of one instance: a run of consecutive numbers, one for each listener and server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::Settings;

/// A place in the run of ports. The order of the variants is the layout and never changes: add new ones at
/// the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// The console.
    Console,
    /// `/healthz`, `/readyz`, `/metrics`.
    Ops,
    /// The private PostgreSQL.
    Postgres,
    /// The private PgBouncer.
    Pgbouncer,
    /// The sample relay.
    SampleRelay,
    /// Clients of messages.
    Messages,
    /// Health and metrics of messages.
    MessagesHttp,
    /// Clients and workers of jobs.
    Jobs,
    /// Clients of blobs.
    Blossom,
}

impl Port {
    /// All of them, in their order.
    pub const ALL: [Self; Self::Blossom as usize + 1] = [
        Self::Console,
        Self::Ops,
        Self::Postgres,
        Self::Pgbouncer,
        Self::SampleRelay,
        Self::Messages,
        Self::MessagesHttp,
        Self::Jobs,
        Self::Blossom,
    ];

    /// The name of what listens there, as the ready file, logs and metrics have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Ops => "ops",
            Self::Postgres => "postgres",
            Self::Pgbouncer => "pgbouncer",
            Self::SampleRelay => "sample-relay",
            Self::Messages => "messages",
            Self::MessagesHttp => "messages-http",
            Self::Jobs => "jobs",
            Self::Blossom => "blossom",
        }
    }
}

/// Every port of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The first port.
    pub base: u16,
}

impl Ports {
    /// The ports of an instance that was not told others.
    pub const DEFAULT: Self = Self { base: 4700 };

    /// How many consecutive ports an instance needs.
    #[expect(clippy::cast_possible_truncation, reason = "there are a handful of ports")]
    pub const COUNT: u16 = Port::ALL.len() as u16;

    /// The number of one port.
    #[must_use]
    pub const fn of(self, port: Port) -> u16 {
        self.base.saturating_add(port as u16)
    }

    /// The default address of one port, on loopback.
    #[must_use]
    pub const fn local(self, port: Port) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.of(port))
    }
}

/// One listener of a service.
#[derive(Debug)]
pub struct ListenerSpec {
    /// Its place in the run of ports, and its name.
    pub port: Port,
    /// The setting that holds its address.
    pub setting: &'static str,
    /// The address that the settings give it.
    pub address: fn(&Settings) -> SocketAddr,
    /// Moves it to another port of the same IP address, for `quipu up --port-base`.
    pub move_to: fn(&mut Settings, u16),
    /// How the start-up summary shows its URL, with `{}` for `host:port`; `None` when it has no line of its
    /// own.
    pub url: Option<&'static str>,
}

impl ListenerSpec {
    /// Its name in the ready file, logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.port.as_str()
    }
}
