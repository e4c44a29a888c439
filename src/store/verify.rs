//! Proofs that the tables say what the journals say, from the checks and projections that the caller hands
//! over.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::IsolationLevel;

use super::projection::{Difference, Projection};
use super::{Error, owner, registry};
use crate::base::{Secret, counted};

/// A check of one room.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// What holds when the query returns no row.
    pub what: &'static str,
    /// Returns one row with one text for each problem.
    pub query: &'static str,
}

/// One proof and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was proven.
    pub check: String,
    /// What is wrong; empty when the proof succeeded.
    pub problems: Vec<String>,
}

/// Records the result of a run in `verification`, for the metrics. `scope` is `tables`, or `events` with the
/// signatures of all events.
///
/// # Errors
/// Errors of PostgreSQL.
pub async fn record(
    owner: &Secret,
    scope: &'static str,
    took: Duration,
    findings: &[Finding],
) -> Result<(), Error> {
    let problems: usize = findings.iter().map(|finding| finding.problems.len()).sum();
    let problems = i32::try_from(problems).unwrap_or(i32::MAX);
    let client = owner::connect(owner).await?;
    client
        .execute(
            "-- record_verification
             INSERT INTO verification (scope, ended_at, seconds, problems) VALUES ($1, clock_timestamp(), $2, $3)
             ON CONFLICT (scope) DO UPDATE SET ended_at = excluded.ended_at, seconds = excluded.seconds, problems = excluded.problems",
            &[&scope, &took.as_secs_f64(), &problems],
        )
        .await?;
    Ok(())
}

/// Verifies the catalog, runs `checks` in one snapshot, and compares each projection with a replay of its
/// journals. The result is consistent even while other processes write.
pub async fn tables(
    owner: &Secret,
    checks: impl IntoIterator<Item = &Check>,
    projections: impl IntoIterator<Item = &Projection>,
) -> Result<Vec<Finding>, Error> {
    let mut client = owner::connect(owner).await?;
    let mut findings = vec![Finding {
        check: "every table is registered and every journal is guarded".to_owned(),
        problems: registry::problems(&client).await?,
    }];
    let snapshot = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    for check in checks {
        let rows = snapshot.query(check.query, &[]).await?;
        let problems = rows.iter().map(|row| row.get(0)).collect();
        findings.push(Finding { check: check.what.to_owned(), problems });
    }
    snapshot.commit().await?;
    for projection in projections {
        let differences = projection.verify(&mut client).await?;
        let describe = |d: &Difference| {
            format!(
                "{}: {} that a replay does not give, {} missing; `quipu rebuild {}` recreates it",
                d.table,
                counted(d.unexpected, "row", "rows"),
                d.missing,
                projection.name
            )
        };
        findings.push(Finding {
            check: format!("projection {} equals a replay of its journals", projection.name),
            problems: differences.iter().map(describe).collect(),
        });
    }
    Ok(findings)
}
