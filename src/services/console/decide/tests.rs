//! The rules: what is said of which facts, and that thresholds and words are those of the alerts.

use serde_json::Value;

use super::*;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

/// An archive of one network at work, with nothing wrong.
fn fine() -> Facts {
    let clearnet = Network {
        name: "clearnet".to_owned(),
        active: 100,
        readable: 80,
        failed_sessions: 3,
        is_heard: true,
        last_heard_at: Some(now()),
        median_s: Some(60.0),
        expiring: 1,
    };
    Facts {
        now: now(),
        troubles: Vec::new(),
        is_database_read: true,
        unread: Vec::new(),
        spare_bytes: Some(1_000_000),
        daily_growth_bytes: Some(1_000.0),
        verified: Some((now(), 0)),
        lags: vec![("totals".to_owned(), 0.5)],
        has_totals: true,
        last_stored_at: Some(now() - TimeDelta::minutes(1)),
        first_relay_at: Some(now() - TimeDelta::days(9)),
        networks: vec![clearnet],
        gaps: Some(1_000),
        messages: Some(Messages { accepted: 50, acknowledged: 40, oldest_s: Some(7.0) }),
        blobs: Some(Blobs { unavailable: 0, oldest_unverified_s: Some(20.0) }),
    }
}

/// The history of a console that saw the same figures all the time.
fn steady(facts: &Facts) -> History {
    let mut history = History::default();
    for hours in (0..=25).rev() {
        history.add(Sample {
            at: facts.now - TimeDelta::hours(hours),
            gaps: facts.gaps.unwrap_or(0),
            medians: facts
                .networks
                .iter()
                .filter_map(|one| Some((one.name.clone(), one.median_s?)))
                .collect(),
        });
    }
    history
}

/// What is said when `change` has happened to an archive with nothing wrong.
fn said(change: impl FnOnce(&mut Facts)) -> Vec<Problem> {
    let mut facts = fine();
    let history = steady(&facts);
    change(&mut facts);
    problems(&facts, &history)
}

/// The only problem.
fn only(problems: Vec<Problem>) -> Problem {
    let [problem] = <[Problem; 1]>::try_from(problems).unwrap_or_else(|all| panic!("{all:?}"));
    problem
}

fn failing(service: &str, is_waiting: bool) -> Trouble {
    let since = now() - TimeDelta::hours(2);
    Trouble { service: service.to_owned(), since, reason: "it <broke>".to_owned(), is_waiting }
}

#[test]
fn given_an_archive_at_work_then_nothing_is_wrong() {
    assert_eq!(said(|_| ()), []);
    // Neither in one that has just started, of which little is known.
    let mut facts = fine();
    (facts.spare_bytes, facts.daily_growth_bytes, facts.verified) = (None, None, None);
    (facts.lags, facts.has_totals, facts.last_stored_at) = (Vec::new(), false, None);
    (facts.networks, facts.gaps, facts.messages, facts.blobs) = (Vec::new(), None, None, None);
    assert_eq!(problems(&facts, &History::default()), []);
}

#[test]
fn given_a_service_that_fails_then_it_is_named_with_its_reason_and_since_when() {
    let problem = only(said(|facts| facts.troubles = vec![failing("finder", false)]));
    assert_eq!((problem.alert, problem.severity), ("QuipuServiceFailing", Severity::Warning));
    assert_eq!(problem.what, "The service finder fails: it <broke>.");
    assert_eq!(problem.since, Some(now() - TimeDelta::hours(2)));
    let problem = only(said(|facts| facts.troubles = vec![failing("monitor", true)]));
    assert!(problem.what.starts_with("The service monitor waits: "), "{problem:?}");
}

#[test]
fn given_a_database_that_does_not_answer_then_it_is_said_once_and_first() {
    let found = said(|facts| facts.troubles = vec![failing("finder", false), failing("database", true)]);
    let alerts: Vec<_> = found.iter().map(|problem| problem.alert).collect();
    assert_eq!(alerts, ["QuipuDatabaseDown", "QuipuServiceFailing"]);
    let unread = |facts: &mut Facts| (facts.is_database_read, facts.unread) = (false, vec!["sizes"]);
    assert_eq!(only(said(unread)).what, "PostgreSQL does not answer.");
    let both = said(|facts| {
        unread(facts);
        facts.troubles = vec![failing("database", true)];
    });
    assert_eq!(only(both).since, Some(now() - TimeDelta::hours(2)));
}

#[test]
fn given_figures_that_cannot_be_read_then_the_page_does_not_claim_that_nothing_is_wrong() {
    let problem = only(said(|facts| facts.unread = vec!["sizes", "sessions"]));
    assert_eq!(
        (problem.alert, problem.what.as_str()),
        ("QuipuReadingsFail", "Cannot be read: sizes, sessions.")
    );
}

#[test]
fn given_a_full_disk_then_it_is_said_and_not_also_that_it_will_be_full() {
    let problem = only(said(|facts| {
        facts.troubles = vec![failing("disk", true)];
        facts.spare_bytes = Some(-1);
    }));
    assert_eq!((problem.alert, problem.severity), ("QuipuDiskFull", Severity::Critical));
}

#[test]
fn given_a_disk_that_is_full_within_a_week_then_the_days_are_counted() {
    for (spare_bytes, what) in [
        (-5, Some("The disk is full today, at the speed of the last week.")),
        (1_999, Some("The disk is full tomorrow, at the speed of the last week.")),
        (6_999, Some("The disk is full in 6 days, at the speed of the last week.")),
        (7_000, None),
    ] {
        let found = said(|facts| facts.spare_bytes = Some(spare_bytes));
        assert_eq!(found.first().map(|problem| problem.what.as_str()), what, "{spare_bytes}");
    }
    assert_eq!(said(|facts| (facts.spare_bytes, facts.daily_growth_bytes) = (Some(1), Some(0.0))), []);
}

#[test]
fn given_a_verification_with_differences_then_it_is_critical() {
    let ended_at = now() - TimeDelta::days(3);
    let problem = only(said(|facts| facts.verified = Some((ended_at, 2))));
    assert_eq!((problem.alert, problem.since), ("QuipuVerifyFailed", Some(ended_at)));
    assert_eq!(problem.what, "The newest `quipu verify` found 2 differences.");
}

#[test]
fn given_a_projection_that_is_five_minutes_behind_then_it_is_named() {
    assert_eq!(said(|facts| facts.lags = vec![("totals".to_owned(), 300.0)]), []);
    let problem = only(said(|facts| facts.lags = vec![("totals".to_owned(), 301.0)]));
    assert_eq!(problem.what, "The projection totals is behind its journal.");
    assert_eq!(problem.since, Some(now() - TimeDelta::seconds(301)));
}

#[test]
fn given_readable_relays_and_nothing_stored_for_an_hour_then_nothing_is_archived() {
    let since = now() - TimeDelta::minutes(61);
    assert_eq!(said(|facts| facts.last_stored_at = Some(now() - RECENT)), []);
    let problem = only(said(|facts| facts.last_stored_at = Some(since)));
    assert_eq!((problem.alert, problem.since), ("QuipuNothingArchived", Some(since)));
    let never = only(said(|facts| facts.last_stored_at = None));
    assert_eq!(never.what, "Nothing was ever archived, although relays can be read.");
    // A fresh archive has an hour, and one whose relays cannot be read has another fault.
    assert_eq!(said(|facts| (facts.last_stored_at, facts.first_relay_at) = (None, Some(now()))), []);
    let unreadable = |facts: &mut Facts| {
        facts.last_stored_at = Some(since);
        facts.networks[0].readable = 0;
    };
    assert_eq!(said(unreadable), []);
    // Totals that are behind do not know.
    let behind = only(said(|facts| {
        facts.last_stored_at = Some(since);
        facts.lags = vec![("totals".to_owned(), 4_000.0)];
    }));
    assert_eq!(behind.alert, "QuipuProjectionBehind");
    assert_eq!(said(|facts| (facts.last_stored_at, facts.has_totals) = (Some(since), false)), []);
}

#[test]
fn given_a_network_whose_sessions_all_fail_then_it_is_silent() {
    let last_heard_at = Some(now() - TimeDelta::hours(5));
    let change = |failed_sessions: i64, is_heard: bool| {
        move |facts: &mut Facts| {
            let network = &mut facts.networks[0];
            (network.failed_sessions, network.is_heard) = (failed_sessions, is_heard);
            network.last_heard_at = last_heard_at;
        }
    };
    let problem = only(said(change(1, false)));
    assert_eq!(
        problem.what,
        "The network clearnet is silent: 1 session failed within 60 minutes, and no relay answered."
    );
    assert_eq!(problem.since, last_heard_at);
    assert_eq!((said(change(0, false)), said(change(7, true))), (vec![], vec![]));
}

#[test]
fn given_a_median_that_is_old_and_grows_then_the_archive_falls_behind() {
    let hours = |hours: f64| move |facts: &mut Facts| facts.networks[0].median_s = Some(hours * 3_600.0);
    // A minute six hours ago, and now: it grew by nearly a second each second.
    assert_eq!(said(hours(6.0)), []);
    let problem = only(said(hours(6.5)));
    assert_eq!(problem.alert, "QuipuFallingBehind");
    assert!(
        problem.what.contains("falls behind on clearnet") && problem.what.contains("6 hours old"),
        "{problem:?}"
    );
    // A first crawl: years behind all the time.
    let mut facts = fine();
    hours(90_000.0)(&mut facts);
    assert_eq!(problems(&facts, &steady(&facts)), []);
    // Without a past nothing is known.
    hours(6.5)(&mut facts);
    assert_eq!(problems(&facts, &History::default()), []);
}

#[test]
fn given_many_more_gaps_than_a_day_ago_then_they_grow() {
    assert_eq!(said(|facts| facts.gaps = Some(1_200)), []);
    let problem = only(said(|facts| facts.gaps = Some(1_201)));
    assert_eq!(problem.what, "Known gaps grow: 1201, 201 more than a day ago.");
    let mut few = fine();
    few.gaps = Some(10);
    let history = steady(&few);
    for (gaps, number) in [(110, 0), (111, 1)] {
        few.gaps = Some(gaps);
        assert_eq!(problems(&few, &history).len(), number, "{gaps}");
    }
}

#[test]
fn given_a_tenth_of_the_certificates_ends_then_it_is_said() {
    assert_eq!(said(|facts| facts.networks[0].expiring = 10), []);
    let problem = only(said(|facts| facts.networks[0].expiring = 11));
    assert!(problem.what.starts_with("11 of 100 relays of clearnet "), "{problem:?}");
    assert_eq!(said(|facts| (facts.networks[0].expiring, facts.networks[0].active) = (0, 0)), []);
}

#[test]
fn given_messages_and_no_acknowledgement_then_they_are_not_delivered() {
    let messages = |accepted, acknowledged| Messages { accepted, acknowledged, oldest_s: Some(4_000.0) };
    assert_eq!(said(|facts| facts.messages = Some(messages(10, 0))), []);
    assert_eq!(said(|facts| facts.messages = Some(messages(11, 1))), []);
    let problem = only(said(|facts| facts.messages = Some(messages(11, 0))));
    assert_eq!(
        problem.what,
        "11 messages were committed in the last 60 minutes, and no device acknowledged one."
    );
    assert_eq!(problem.since, Some(now() - TimeDelta::seconds(4_000)));
}

#[test]
fn given_blobs_without_a_copy_or_copies_without_a_proof_then_it_is_said() {
    let blobs = |unavailable, age_s| Some(Blobs { unavailable, oldest_unverified_s: age_s });
    assert_eq!(said(|facts| facts.blobs = blobs(0, Some(3_600.0))), []);
    assert_eq!(said(|facts| facts.blobs = blobs(0, None)), []);
    let problem = only(said(|facts| facts.blobs = blobs(3, None)));
    assert_eq!(
        (problem.alert, problem.what.as_str()),
        ("QuipuBlobsUnavailable", "3 kept blobs have no copy.")
    );
    let problem = only(said(|facts| facts.blobs = blobs(0, Some(3_601.0))));
    assert_eq!(problem.alert, "QuipuBlobsNotVerified");
    assert_eq!(problem.since, Some(now() - TimeDelta::seconds(3_601)));
}

#[test]
fn the_worst_is_said_first() {
    let found = said(|facts| {
        facts.networks[0].expiring = 50;
        facts.last_stored_at = Some(now() - TimeDelta::hours(2));
        facts.lags.push(("other".to_owned(), 299.0));
        facts.verified = Some((now(), 1));
    });
    let severities: Vec<_> = found.iter().map(|problem| problem.severity).collect();
    assert_eq!(severities, [Severity::Critical, Severity::Critical, Severity::Warning]);
}

/// Every alert of `monitoring/alerts/`.
fn alerts() -> Vec<Value> {
    let files = [
        include_str!("../../../../monitoring/alerts/archive.yml"),
        include_str!("../../../../monitoring/alerts/blossom.yml"),
        include_str!("../../../../monitoring/alerts/messages.yml"),
        include_str!("../../../../monitoring/alerts/process.yml"),
        include_str!("../../../../monitoring/alerts/store.yml"),
    ];
    let files = files.map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
    let groups = files.iter().flat_map(|file| file["groups"].as_array().unwrap());
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn alert(name: &str) -> Value {
    let found = alerts().into_iter().find(|rule| rule["alert"] == name);
    found.unwrap_or_else(|| panic!("monitoring/alerts/ has no {name}"))
}

#[test]
fn every_rule_is_an_alert_of_the_same_severity_with_a_section_in_the_documents() {
    let document = include_str!("../../../../docs/alerts.md");
    for rule in archive::RULES.iter().chain(&store::RULES).chain(&blobs::RULES) {
        let severity = serde_json::to_value(rule.severity).unwrap();
        assert_eq!(alert(rule.alert)["labels"]["severity"], severity, "{}", rule.alert);
        assert!(document.contains(&format!("\n### {}\n", rule.alert)), "{}", rule.alert);
        for words in [rule.why, rule.action] {
            assert!(words.ends_with('.') && words.matches('`').count() % 2 == 0, "{words}");
        }
    }
}

/// The numbers and spans of an expression, in their order.
fn numbers(expression: &str) -> Vec<&str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)));
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).collect()
}

/// A span as Prometheus writes it.
fn written(span: TimeDelta) -> String {
    if span.num_days() > 0 { format!("{}d", span.num_days()) } else { format!("{}h", span.num_hours()) }
}

#[test]
fn the_thresholds_are_those_of_the_alerts() {
    let share = |percent: i64| format!("{}.{}", percent / 100, (percent % 100) / 10);
    let recent = written(RECENT);
    let zero = "0".to_owned();
    let (open_span, gaps_span) = (written(archive::OPEN_SPAN), written(archive::GAPS_SPAN));
    for (name, expected) in [
        ("QuipuNothingArchived", vec![recent.clone(), zero.clone(), zero.clone()]),
        ("QuipuNetworkSilent", vec![recent.clone(), zero.clone(), recent.clone(), zero.clone()]),
        (
            "QuipuFallingBehind",
            vec![
                "0.5".to_owned(), // the median
                archive::OPEN_S.to_string(),
                "0.5".to_owned(),
                open_span,
                archive::OPEN_GROWTH.to_string(),
            ],
        ),
        (
            "QuipuGapsGrowing",
            vec![gaps_span.clone(), archive::MORE_GAPS.to_string(), share(archive::GAPS_PERCENT), gaps_span],
        ),
        ("QuipuCertificatesExpiring", vec![share(archive::EXPIRING_PERCENT)]),
        ("QuipuProjectionBehind", vec![store::BEHIND_S.to_string()]),
        ("QuipuVerifyFailed", vec![store::VERIFY_PROBLEMS.to_string()]),
        ("QuipuBlobsUnavailable", vec![blobs::UNAVAILABLE.to_string()]),
        ("QuipuBlobsNotVerified", vec![blobs::UNVERIFIED_S.to_string()]),
        // The alert measures the speed of six hours, the page that of a week.
        (
            "QuipuDiskFullSoon",
            vec!["6h".to_owned(), zero.clone(), "86400".to_owned(), store::FULL_DAYS.to_string()],
        ),
        ("QuipuMessagesNotDelivered", vec![recent.clone(), store::ACCEPTED.to_string(), recent, zero]),
    ] {
        let rule = alert(name);
        assert_eq!(numbers(rule["expr"].as_str().unwrap()), expected, "{name}");
    }
}
