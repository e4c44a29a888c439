//! Rules on services, the database, the disk, projections and messages.

use super::{Facts, Problem, RECENT, Rule, Severity, Trouble, ago};

/// Days until the disk is full below which it is said.
pub(super) const FULL_DAYS: i64 = 7;

/// Age of a projection's oldest unread batch, in seconds.
pub(super) const BEHIND_S: f64 = 300.0;

/// Problems of `quipu verify` that are none.
pub(super) const VERIFY_PROBLEMS: i32 = 0;

/// Messages within [`RECENT`] from which on one should have been acknowledged.
pub(super) const ACCEPTED: i64 = 10;

/// Names of what is no service but stands among them in the health: `room/database.rs`, `room/space.rs`.
const DATABASE: &str = "database";
const DISK: &str = "disk";

const DATABASE_DOWN: Rule = Rule {
    alert: "QuipuDatabaseDown",
    severity: Severity::Critical,
    why: "Everything waits for the database, and clients of messages are refused. It goes on by itself when the database answers.",
    action: "Ask PostgreSQL without PgBouncer, `psql \"$(quipu url owner)\" -c 'SELECT 1'`, then through it, `psql \"$(quipu url reader)\" -c 'SELECT 1'`. The one that does not answer has the reason in its log. A full disk stops PostgreSQL: free space first.",
};

const DISK_FULL: Rule = Rule {
    alert: "QuipuDiskFull",
    severity: Severity::Critical,
    why: "Nothing is accepted: messages are refused with 507, and crawling waits. It goes on by itself when a quarter more than the reserve is free.",
    action: "Delete what does not belong to Quipu, move logs away, or enlarge the file system. `quipu retention --before MONTH` drops old months, asks first and cannot be undone.",
};

const SERVICE_FAILING: Rule = Rule {
    alert: "QuipuServiceFailing",
    severity: Severity::Warning,
    why: "The work of this service is not done. Other services go on.",
    action: "Do as the reason says; the log has the whole error. `quipu setup-sql --check` lists missing privileges.",
};

const VERIFY_FAILED: Rule = Rule {
    alert: "QuipuVerifyFailed",
    severity: Severity::Critical,
    why: "A table differs from its journal: it was changed by hand, the disk lost writes, or Quipu has a bug.",
    action: "Keep the output of `quipu verify`. It names the table. A projection: `quipu rebuild NAME`, then `quipu verify` again. A journal: check the disk, back up the present state, restore, and report it.",
};

const DISK_FULL_SOON: Rule = Rule {
    alert: "QuipuDiskFullSoon",
    severity: Severity::Warning,
    why: "When less than the reserve is free, nothing is accepted any more.",
    action: "Enlarge the file system, or plan which old months `quipu retention --before MONTH` may drop. A first crawl is fast and slows down by itself.",
};

const PROJECTION_BEHIND: Rule = Rule {
    alert: "QuipuProjectionBehind",
    severity: Severity::Warning,
    why: "Totals and this page are old. Nothing is lost.",
    action: "Start `projector` and `ticker` if they do not run, or end the transaction that holds them up: `SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY xact_start`. It catches up by itself.",
};

const NOT_DELIVERED: Rule = Rule {
    alert: "QuipuMessagesNotDelivered",
    severity: Severity::Warning,
    why: "Messages wait, and are lost when their time is over.",
    action: "Check that recipients reach the listener, and that a proxy in front of it passes WebSocket upgrades on. `quipu messages tail` with a key of your own shows whether messages arrive.",
};

const UNREAD: Rule = Rule {
    alert: "QuipuReadingsFail",
    severity: Severity::Warning,
    why: "What is not read cannot be judged: more may be wrong than this page says.",
    action: "The log has the error. `quipu setup-sql --check` lists missing privileges; a timeout means that the database is overloaded.",
};

/// Every rule of this file.
#[cfg(test)]
pub(super) const RULES: [&Rule; 8] = [
    &DATABASE_DOWN,
    &DISK_FULL,
    &SERVICE_FAILING,
    &VERIFY_FAILED,
    &DISK_FULL_SOON,
    &PROJECTION_BEHIND,
    &NOT_DELIVERED,
    &UNREAD,
];

pub(super) fn problems(facts: &Facts) -> Vec<Problem> {
    let mut found: Vec<Problem> = facts.troubles.iter().map(trouble).collect();
    let is_said = |rule: &Rule, found: &[Problem]| found.iter().any(|problem| problem.alert == rule.alert);
    if !facts.is_database_read && !is_said(&DATABASE_DOWN, &found) {
        found.push(DATABASE_DOWN.problem("PostgreSQL does not answer.", None));
    }
    if !facts.unread.is_empty() && facts.is_database_read {
        found.push(UNREAD.problem(format!("Cannot be read: {}.", facts.unread.join(", ")), None));
    }
    if let Some((ended_at, problems)) = facts.verified.filter(|(_, problems)| *problems > VERIFY_PROBLEMS) {
        let what = format!("The newest `quipu verify` found {problems} differences.");
        found.push(VERIFY_FAILED.problem(what, Some(ended_at)));
    }
    if !is_said(&DISK_FULL, &found) {
        found.extend(full_soon(facts));
    }
    for (projection, seconds) in facts.lags.iter().filter(|(_, seconds)| *seconds > BEHIND_S) {
        let what = format!("The projection {projection} is behind its journal.");
        found.push(PROJECTION_BEHIND.problem(what, ago(facts.now, *seconds)));
    }
    if let Some(messages) = facts.messages.filter(|all| all.accepted > ACCEPTED && all.acknowledged == 0) {
        let what = format!(
            "{} messages were committed in the last {} minutes, and no device acknowledged one.",
            messages.accepted,
            RECENT.num_minutes()
        );
        found.push(NOT_DELIVERED.problem(what, messages.oldest_s.and_then(|age_s| ago(facts.now, age_s))));
    }
    found
}

fn trouble(trouble: &Trouble) -> Problem {
    let Trouble { service, since, reason, is_waiting } = trouble;
    match (service.as_str(), is_waiting) {
        (DATABASE, true) => {
            DATABASE_DOWN.problem(format!("The database does not answer: {reason}."), Some(*since))
        }
        (DISK, true) => DISK_FULL.problem(format!("The disk is full: {reason}."), Some(*since)),
        (_, true) => SERVICE_FAILING.problem(format!("The service {service} waits: {reason}."), Some(*since)),
        (_, false) => {
            SERVICE_FAILING.problem(format!("The service {service} fails: {reason}."), Some(*since))
        }
    }
}

fn full_soon(facts: &Facts) -> Option<Problem> {
    let days = full_in_days(facts.spare_bytes?, facts.daily_growth_bytes?)?;
    let what = match days {
        0 => "The disk is full today, at the speed of the last week.".to_owned(),
        1 => "The disk is full tomorrow, at the speed of the last week.".to_owned(),
        _ => format!("The disk is full in {days} days, at the speed of the last week."),
    };
    (days < FULL_DAYS).then(|| DISK_FULL_SOON.problem(what, None))
}

/// Whole days until the free space falls to the reserve; `None` when nothing grows.
pub(in super::super) fn full_in_days(spare_bytes: i64, daily_growth_bytes: f64) -> Option<i64> {
    if daily_growth_bytes < 1.0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "days, for people")]
    let days = (spare_bytes.max(0) as f64 / daily_growth_bytes) as i64;
    Some(days)
}
