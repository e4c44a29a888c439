//! When each group was read, and how long that took.

use super::READ;
use crate::telemetry::describe_metrics;

describe_metrics! { Observer;
    LAST: Gauge = "quipu_observer_last_read_timestamp_seconds" [READ],
        "Time of the newest successful reading, Unix time";
    DURATION: Gauge = "quipu_observer_read_duration_seconds" [READ], "Duration of that reading";
}
