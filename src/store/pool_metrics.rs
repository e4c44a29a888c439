//! Metrics of the connection pools: their size, read at each scrape, and how long a probe waits for a
//! connection. A pool of sqlx does not tell how long its callers wait, so one more caller measures it.

use std::fmt;
use std::time::Duration;

use deadpool_postgres::Pool;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Pools;
use crate::telemetry::{Label, Metric, describe_metrics};

const WRITE: &str = "write";
const SESSION: &str = "session";
const READ: &str = "read";
const IN_USE: &str = "in_use";
const IDLE: &str = "idle";

const POOL: Label = Label::listed("pool", &[&[WRITE, SESSION, READ]]);
const WRITE_POOL: Label = Label::listed("pool", &[&[WRITE]]);
const STATE: Label = Label::listed("state", &[&[IN_USE, IDLE]]);

describe_metrics! { Process;
    CONNECTIONS: Gauge = "quipu_store_pool_connections" [POOL, STATE],
        "Open connections of the process's pools";
    LIMIT: Gauge = "quipu_store_pool_limit_connections" [POOL], "Connections that the pool may have";
    WAITING: Gauge = "quipu_store_pool_waiting_requests" [WRITE_POOL],
        "Callers that wait for a connection now";
    WAIT: Histogram = "quipu_store_pool_wait_seconds" [POOL],
        "Time for which a probe waited for a connection; the probe runs every `services.observer.interval_s` \
         on pools that have connections";
}

/// Seconds.
const WAITS: [f64; 5] = [0.001, 0.01, 0.1, 1.0, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabel {
    pool: &'static str,
}

/// Measures the pools of one process.
#[derive(Debug, Clone)]
pub struct PoolMetrics {
    pools: Pools,
    waits: Family<PoolLabel, Histogram, fn() -> Histogram>,
}

/// Size of one pool.
struct Size {
    pool: &'static str,
    in_use: usize,
    idle: usize,
    limit: usize,
}

impl PoolMetrics {
    /// Metrics of `pools`.
    #[must_use]
    pub fn new(pools: Pools) -> Self {
        Self { pools, waits: Family::new_with_constructor(|| Histogram::new(WAITS)) }
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
        WAIT.register(registry, self.waits.clone());
    }

    /// Probes the pools every `interval` until stopped.
    pub async fn probe(self, interval: Duration, stop: CancellationToken) {
        let Pools { write, session, read, .. } = &self.pools;
        while stop.run_until_cancelled(sleep(interval)).await.is_some() {
            // A pool without connections stays without: the probe would keep one open.
            let probes = async {
                tokio::join!(
                    self.measure(WRITE, write.status().size, async { drop(write.get().await) }),
                    self.measure(SESSION, session.size(), async { drop(session.acquire().await) }),
                    self.measure(READ, read.size(), async { drop(read.acquire().await) }),
                )
            };
            let _ = stop.run_until_cancelled(probes).await;
        }
    }

    async fn measure<N: PartialEq + Default>(
        &self,
        pool: &'static str,
        connections: N,
        acquire: impl Future<Output = ()>,
    ) {
        if connections != N::default() {
            let started = Instant::now();
            acquire.await;
            self.waits.get_or_create(&PoolLabel { pool }).observe(started.elapsed().as_secs_f64());
        }
    }

    fn sizes(&self) -> [Size; 3] {
        let Pools { write, session, read, .. } = &self.pools;
        [of_deadpool(write), of_sqlx(SESSION, session), of_sqlx(READ, read)]
    }
}

fn of_deadpool(pool: &Pool) -> Size {
    let status = pool.status();
    let idle = status.available;
    Size { pool: WRITE, in_use: status.size.saturating_sub(idle), idle, limit: status.max_size }
}

fn of_sqlx(name: &'static str, pool: &PgPool) -> Size {
    let (open, idle) = (usize::try_from(pool.size()).unwrap_or(usize::MAX), pool.num_idle());
    let limit = usize::try_from(pool.options().get_max_connections()).unwrap_or(usize::MAX);
    Size { pool: name, in_use: open.saturating_sub(idle), idle, limit }
}

impl Collector for PoolMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let sizes = self.sizes();
        let mut connections = CONNECTIONS.describe(&mut encoder)?;
        for size in &sizes {
            for (state, count) in [(IN_USE, size.in_use), (IDLE, size.idle)] {
                let labels = [(POOL.key, size.pool), (STATE.key, state)];
                ConstGauge::new(count).encode(connections.encode_family(&labels)?)?;
            }
        }
        of_pools(&mut encoder, &LIMIT, sizes.map(|size| (size.pool, size.limit)))?;
        of_pools(&mut encoder, &WAITING, [(WRITE, self.pools.write.status().waiting)])
    }
}

fn of_pools<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    pools: [(&'static str, usize); N],
) -> Result<(), fmt::Error> {
    let mut family = metric.describe(encoder)?;
    for (pool, count) in pools {
        ConstGauge::new(count).encode(family.encode_family(&[(POOL.key, pool)])?)?;
    }
    Ok(())
}
