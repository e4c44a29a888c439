//! Retention and erasure of jobs: what leaves, what stays, and what goes on afterwards.

use std::fs;

use chrono::NaiveDate;
use quipu::services::jobs::append::JobAnswer;
use quipu::services::jobs::command::{Change, JobCommand, Submission};
use quipu::services::jobs::event::Status;
use quipu::store::removal::jobs::{
    JobHold, JobRemovalError, RemovedJobs, drop_jobs, erase_job, is_source_in_use, job_partitions_before,
    preview_job,
};
use quipu::store::{DatabaseUrls, Error};
use serde_json::json;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use super::file_kit::{FileRoom, claimed, send, sha256, source_key};
use super::kit::{Job, PDF, Room, http, number, problems, project};
use crate::support::database::TestDatabase;
use crate::support::instance::Instance;
use crate::support::proxy::{Fault, Proxy, eventually};

/// After every entry of a test.
const LATER: NaiveDate = NaiveDate::from_ymd_opt(2200, 1, 1).unwrap();

/// Before every entry of a test.
const EARLIER: NaiveDate = NaiveDate::from_ymd_opt(2020, 1, 1).unwrap();

/// A job that is unique.
const KEYED: Job<'static> = Job { source_hash: Some("abc"), ..PDF };

/// Why jobs had to stay.
fn held<T: std::fmt::Debug>(outcome: Result<T, JobRemovalError>) -> JobHold {
    match outcome {
        Err(JobRemovalError::Held(hold)) => hold,
        other => panic!("{other:?}"),
    }
}

fn cancel() -> Change {
    Change::Cancel { why: None }
}

/// Submits a job that waits for another one.
async fn submit_after(room: &Room, job: i64) -> i64 {
    let submission = Submission { depends_on: vec![job], ..room.submission(PDF).await };
    let waiting = submission.number;
    let answer = room.started.jobs.append(JobCommand::Submit(Box::new(submission))).await.unwrap();
    assert!(matches!(answer, JobAnswer::Submitted(stored) if stored.status == Status::Waiting), "{answer:?}");
    waiting
}

async fn jobs_of(database: &TestDatabase, status: &str) -> i64 {
    let counted = format!("SELECT coalesce(sum(jobs), 0)::bigint FROM job_counts WHERE status = '{status}'");
    number(database, &counted).await
}

#[tokio::test]
async fn an_erased_job_is_gone_and_its_unique_key_makes_a_new_one() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let urls = database.urls();
    let owner = urls.owner().unwrap();
    let gone = room.submit(KEYED).await.job;
    let lease = room.claim("w", 1, 60).await.remove(0);
    room.complete(&lease, "w").await.unwrap();
    let kept = room.submit(PDF).await.job;
    project(&database).await;
    // Entries that the projector has not counted yet.
    let lease = room.claim("w", 1, 60).await.remove(0);
    assert_eq!(lease.facts.job, kept);
    room.complete(&lease, "w").await.unwrap();
    assert_eq!(jobs_of(&database, "completed").await, 2);

    let preview = preview_job(owner, gone).await.unwrap();
    let rows = RemovedJobs { jobs: 1, entries: 2, files: 0 };
    assert_eq!((preview.status.as_str(), preview.holds), ("completed", rows));
    assert_eq!(erase_job(owner, gone, "asked by its author").await.unwrap().0, rows);
    assert_eq!(room.get(&format!("/api/jobs/{gone}")).await.0, 404);
    assert_eq!(room.get(&format!("/api/jobs/{gone}/history")).await.0, 404);
    assert_eq!(room.get(&format!("/api/jobs/{kept}")).await.0, 200);
    assert_eq!(jobs_of(&database, "completed").await, 1);
    assert_eq!(problems(&database).await, Vec::<String>::new());
    let record = format!(
        "SELECT count(*) FROM erasure WHERE kind = 'job' AND first_job = {gone} AND last_job = {gone}
           AND reason = 'asked by its author' AND detail @> '{{\"jobs\": 1, \"entries\": 2, \"files\": 0}}'"
    );
    assert_eq!(number(&database, &record).await, 1);
    let left = format!("SELECT count(*) FROM job_ready WHERE job = {gone}");
    assert_eq!(number(&database, &left).await, 0, "or it would count as a job to be claimed");

    let again = room.submit(KEYED).await;
    assert!(!again.is_known && again.job > kept, "{again:?}");
    let lease = room.claim("w", 9, 60).await;
    assert_eq!(lease.iter().map(|job| job.facts.job).collect::<Vec<_>>(), [again.job]);
    project(&database).await;
    assert_eq!((jobs_of(&database, "completed").await, jobs_of(&database, "running").await), (1, 1));
    assert_eq!(problems(&database).await, Vec::<String>::new());
    assert_eq!(held(erase_job(owner, gone, "again").await), JobHold::Unknown(gone));
}

#[tokio::test]
async fn a_submission_that_is_repeated_after_its_job_was_erased_stores_nothing() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let urls = database.urls();
    let owner = urls.owner().unwrap();
    let submit = async |submission: &Submission| {
        room.started.jobs.append(JobCommand::Submit(Box::new(submission.clone()))).await.unwrap()
    };
    let mut erased = Vec::new();
    for job in [PDF, KEYED] {
        let submission = room.submission(job).await;
        let first = submit(&submission).await;
        assert!(
            matches!(first, JobAnswer::Submitted(stored) if stored.job == submission.number),
            "{first:?}"
        );
        assert_eq!(
            submit(&submission).await,
            first,
            "a repetition whose job is there is answered as the first one"
        );
        room.change(submission.number, cancel()).await.unwrap();
        erase_job(owner, submission.number, "x").await.unwrap();
        assert_eq!(submit(&submission).await, JobAnswer::Erased);
        erased.push(submission);
    }
    let stored = "SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM job_log) + (SELECT count(*) FROM job_keys)
                         + (SELECT count(*) FROM job_ready WHERE type <> '')";
    assert_eq!(number(&database, stored).await, 0);
    assert_eq!(room.claim("w", 9, 60).await, []);
    // Another job has the unique key by now. The number of the erased one is given to no other job.
    let other = room.submit(KEYED).await;
    assert!(!other.is_known, "{other:?}");
    assert_eq!(submit(&erased[1]).await, JobAnswer::Erased);
    let next = room.submit(PDF).await.job;
    assert!(erased.iter().all(|submission| submission.number != next), "{next}");
    assert_eq!(number(&database, "SELECT count(*) FROM jobs").await, 2);
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_client_whose_answer_was_lost_is_told_that_its_job_was_erased() {
    let database = TestDatabase::new().await;
    let direct = database.urls();
    let proxy = Proxy::before(&direct.write).await;
    let urls = DatabaseUrls { write: proxy.url(&direct.write), ..database.urls() };
    let (room, other) = (Room::through(&urls, |_| {}).await, Room::on(&database).await);
    let lost = CancellationToken::new();
    proxy.strike("append_jobs", Fault::ResetAfter(lost.clone()));
    let body = json!({ "type": "pdf", "source_hash": "abc" });
    let erase = async {
        let stored = "SELECT count(*) FROM jobs";
        eventually("the job is stored", async || number(&database, stored).await == 1).await;
        let job = number(&database, "SELECT max(job) FROM jobs").await;
        other.change(job, cancel()).await.unwrap();
        erase_job(direct.owner().unwrap(), job, "x").await.unwrap();
        lost.cancel();
    };
    let ((status, answer), ()) = tokio::join!(room.post("/api/jobs", &body), erase);
    assert_eq!((status, &answer["code"]), (410, &json!("erased")), "{answer}");
    assert_eq!(proxy.struck(), 1);
    assert_eq!(number(&database, "SELECT count(*) FROM jobs").await, 0);
    assert_eq!(room.post("/api/jobs", &body).await.0, 201, "a new submission makes a new job");
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_job_that_is_not_over_or_that_another_one_waits_for_is_not_erased() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let urls = database.urls();
    let owner = urls.owner().unwrap();
    let job = room.submit(PDF).await.job;
    let pending = JobHold::Open { job, status: "pending".to_owned() };
    assert_eq!(held(preview_job(owner, job).await), pending);
    assert_eq!(held(erase_job(owner, job, "x").await), pending);
    let waiting = submit_after(&room, job).await;
    room.change(job, cancel()).await.unwrap();
    let awaited = JobHold::Awaited { job, by: waiting };
    assert_eq!(held(erase_job(owner, job, "x").await), awaited);
    assert!(awaited.to_string().starts_with(&format!("job {waiting} waits for job {job}")), "{awaited}");
    assert_eq!(number(&database, "SELECT count(*) FROM erasure").await, 0);
    assert_eq!(room.get(&format!("/api/jobs/{job}")).await.1["status"], "cancelled");

    room.change(waiting, cancel()).await.unwrap();
    erase_job(owner, job, "x").await.unwrap();
    // A dependency that was removed holds nothing up.
    let retry = Change::Retry { resets_failures: false, priority: None, why: None };
    assert_eq!(room.change(waiting, retry).await.unwrap().status, Status::Pending);
    assert_eq!(room.claim("w", 9, 60).await[0].facts.job, waiting);
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn only_the_owner_erases_a_job_a_reason_is_required_and_no_row_leaves_without_a_record() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let urls = database.urls();
    let owner = urls.owner().unwrap();
    let [job, other] = [room.submit(PDF).await.job, room.submit(PDF).await.job];
    for job in [job, other] {
        room.change(job, cancel()).await.unwrap();
    }
    let service = database.service_url();
    assert!(matches!(erase_job(&service, job, "x").await, Err(JobRemovalError::Store(Error::Broken(_)))));
    assert!(matches!(erase_job(owner, job, "").await, Err(JobRemovalError::Store(Error::Data(_)))));

    let client = database.owner().await;
    let record = |kind: &str, first: i64, last: i64| {
        format!(
            "INSERT INTO erasure (kind, first_job, last_job, reason) VALUES ('{kind}', {first}, {last}, 'a test')"
        )
    };
    client.batch_execute(&record("job", job, job)).await.unwrap();
    for (name, attempt) in [
        ("no record", "DELETE FROM jobs".to_owned()),
        ("no record, in a partition", "DELETE FROM partitions.job_log_m0000".to_owned()),
        ("no record, of files", "DELETE FROM job_files".to_owned()),
        ("a record of an earlier transaction", format!("DELETE FROM job_log WHERE job = {job}")),
        (
            "a record of another job",
            format!("{}; DELETE FROM job_log WHERE job = {other}", record("job", job, job)),
        ),
        ("more than was recorded", format!("{}; DELETE FROM jobs", record("jobs", 0, job))),
    ] {
        let refused = client.batch_execute(&format!("BEGIN; {attempt}")).await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{name}: {refused}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    assert_eq!(number(&database, "SELECT count(*) FROM jobs").await, 2);
    assert_eq!(number(&database, "SELECT count(*) FROM job_log").await, 2);
}

#[tokio::test]
async fn a_change_that_was_decided_before_the_erasure_is_not_stored_after_it() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let job = room.submit(PDF).await.job;
    room.change(job, cancel()).await.unwrap();
    erase_job(database.urls().owner().unwrap(), job, "x").await.unwrap();
    let retried = format!(
        "SELECT count(*) FROM quipu_append_jobs(
            ARRAY[{job}::bigint], ARRAY[2], ARRAY['retried'], ARRAY['cancelled'], ARRAY['pending'], ARRAY['pdf'], ARRAY[3::smallint],
            ARRAY[0], ARRAY[0], ARRAY[NULL::text], ARRAY[NULL::uuid], ARRAY[NULL::integer], ARRAY[0::bigint], ARRAY['test'],
            ARRAY[NULL::text], ARRAY[NULL::jsonb], ARRAY[NULL::integer], ARRAY[NULL::bigint],
            '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')"
    );
    assert_eq!(number(&database, &retried).await, 0);
    assert_eq!(number(&database, "SELECT count(*) FROM job_log").await, 0);
    assert_eq!(room.claim("w", 1, 60).await, []);
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_entries_of_the_outputs_of_an_erased_job_leave_too() {
    let files = FileRoom::new().await;
    let (room, database) = (&files.room, &files.database);
    let claim = claimed(room, b"source").await;
    let put = send(
        claim["upload_url"].as_str().unwrap(),
        "PUT",
        "content-type: application/octet-stream\r\n",
        b"output",
    );
    assert_eq!(put.await.status, 200);
    let complete = json!({ "worker_id": "w1", "output_key": claim["output_key"] });
    room.ok("/api/jobs/1/complete", &complete).await;
    let urls = database.urls();
    let owner = urls.owner().unwrap();
    let outputs = "SELECT count(*) FROM job_files WHERE job = 1";
    let preview = preview_job(owner, 1).await.unwrap();
    assert!(preview.holds.files > 0);
    assert_eq!(preview.holds.files, number(database, outputs).await);
    assert_eq!(preview.objects, ["outputs/1/1/output".to_owned(), source_key(b"source")]);
    // A source that another job names stays.
    room.ok("/api/jobs", &json!({ "type": "other", "source_hash": sha256(b"source") })).await;
    assert_eq!(preview_job(owner, 1).await.unwrap().objects, ["outputs/1/1/output"]);
    let outputs_alone = vec!["outputs/1/1/output".to_owned()];
    assert_eq!(erase_job(owner, 1, "x").await.unwrap(), (preview.holds, outputs_alone));
    assert!(is_source_in_use(owner, &source_key(b"source")).await.unwrap());
    assert!(!is_source_in_use(owner, &source_key(b"none")).await.unwrap());
    assert_eq!(number(database, outputs).await, 0);
    assert_eq!(room.get("/api/files/1/output/url").await.0, 404);
    assert_eq!(problems(database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_partition_of_jobs_that_are_over_is_dropped_and_numbers_go_on() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let urls = database.urls();
    let owner = urls.owner().unwrap();
    let done = room.submit(KEYED).await.job;
    let lease = room.claim("w", 1, 60).await.remove(0);
    room.complete(&lease, "w").await.unwrap();
    let open = room.submit(PDF).await.job;
    project(&database).await;
    assert_eq!(job_partitions_before(owner, LATER).await.unwrap(), [], "new numbers go there");
    assert_eq!(held(drop_jobs(owner, 0, LATER, "x").await), JobHold::Current);

    // As if a million numbers had been drawn.
    let client = database.owner().await;
    client.batch_execute("SELECT setval('job_number', 1000000)").await.unwrap();
    let next = Room::on(&database).await;
    let found = job_partitions_before(owner, LATER).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].first_job, found[0].last_job), (0, 999_999));
    assert_eq!(found[0].holds, RemovedJobs { jobs: 2, entries: 2, files: 0 });
    let why = found[0].held_by.clone().unwrap();
    assert!(why.starts_with(&format!("job {open} is pending")), "{why}");
    let pending = JobHold::Open { job: open, status: "pending".to_owned() };
    assert_eq!(held(drop_jobs(owner, 0, LATER, "x").await), pending);

    let waiting = submit_after(&next, open).await;
    assert!(waiting > 1_000_000, "{waiting}");
    room.change(open, cancel()).await.unwrap();
    let awaited = JobHold::Awaited { job: open, by: waiting };
    assert_eq!(held(drop_jobs(owner, 0, LATER, "x").await), awaited);
    next.change(waiting, cancel()).await.unwrap();
    assert_eq!(job_partitions_before(owner, EARLIER).await.unwrap(), [], "its entries are newer");
    assert!(matches!(held(drop_jobs(owner, 0, EARLIER, "x").await), JobHold::Recent(_)));
    assert_eq!(number(&database, "SELECT count(*) FROM erasure").await, 0);
    assert_eq!(jobs_of(&database, "completed").await, 1);

    assert_eq!(job_partitions_before(owner, LATER).await.unwrap()[0].held_by, None);
    let left = drop_jobs(owner, 0, LATER, "retention").await.unwrap();
    assert_eq!(left, RemovedJobs { jobs: 2, entries: 3, files: 0 });
    for job in [done, open] {
        assert_eq!(next.get(&format!("/api/jobs/{job}")).await.0, 404);
    }
    assert_eq!((jobs_of(&database, "completed").await, jobs_of(&database, "cancelled").await), (0, 1));
    assert_eq!(number(&database, "SELECT count(*) FROM job_totals WHERE jobs = 0").await, 0);
    assert_eq!(problems(&database).await, Vec::<String>::new());
    let record = "SELECT count(*) FROM erasure WHERE kind = 'jobs' AND first_job = 0 AND last_job = 999999 AND reason = 'retention'";
    assert_eq!(number(&database, record).await, 1);
    let ready = "SELECT count(*) FROM job_ready WHERE job < 1000000 AND type <> ''";
    assert_eq!(number(&database, ready).await, 0);
    let marks = "SELECT count(*) FROM job_ready WHERE type = ''";
    assert_eq!(number(&database, marks).await, 2, "the marks of the segments stay");
    assert_eq!(job_partitions_before(owner, LATER).await.unwrap(), [], "what is left is empty");

    // The key is free, and a process may use a number that it has drawn before.
    let again = next.submit(KEYED).await;
    assert!(!again.is_known && again.job > waiting, "{again:?}");
    let late = room.submit(PDF).await.job;
    assert!(late < 1_000_000, "{late}");
    let mut claimed: Vec<i64> = next.claim("w", 9, 60).await.iter().map(|job| job.facts.job).collect();
    claimed.sort_unstable();
    assert_eq!(claimed, [late, again.job]);
    project(&database).await;
    assert_eq!((jobs_of(&database, "running").await, jobs_of(&database, "cancelled").await), (2, 1));
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_partition_that_others_read_stays_until_they_are_done() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let urls = database.urls();
    let owner = urls.owner().unwrap();
    let job = room.submit(PDF).await.job;
    room.change(job, cancel()).await.unwrap();
    database.owner().await.batch_execute("SELECT setval('job_number', 1000000)").await.unwrap();
    let reader = database.service().await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM jobs").await.unwrap();
    assert_eq!(held(drop_jobs(owner, 0, LATER, "x").await), JobHold::Busy);
    assert_eq!(room.get(&format!("/api/jobs/{job}")).await.0, 200);
    reader.batch_execute("COMMIT").await.unwrap();
    let left = RemovedJobs { jobs: 1, entries: 1, files: 0 };
    assert_eq!(drop_jobs(owner, 0, LATER, "x").await.unwrap(), left);
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_show_ask_and_delete_the_files_of_a_job() {
    let instance = Instance::start(&[]);
    let address = instance.ready["services"]["jobs"].as_str().unwrap().parse().unwrap();
    fs::write(instance.folder().join("a.bin"), "content").unwrap();
    let submit = ["jobs", "submit", "a.bin", "--type", "bin", "--json"];
    let id = instance.run(&submit).ok().json_lines()[0]["job_id"].to_string();
    let id = id.as_str();
    let source = instance.data().join("objects").join(source_key(b"content"));
    assert!(source.is_file(), "{}", source.display());
    let erase = |more: &[&str]| {
        let arguments = [&["erase", "--job", id, "--reason", "x"][..], more].concat();
        instance.run(&arguments)
    };
    let open = erase(&["--yes"]).refusal();
    assert!(open.contains(&format!("job {id} is pending")), "{open}");
    instance.run(&["jobs", "cancel", id]).ok();
    for more in [&["--event", id][..], &["--until", "1"]] {
        assert_eq!(erase(more).status.code(), Some(2), "{more:?}");
    }
    let dry = erase(&["--dry-run", "--json"]).ok().json_lines().remove(0);
    assert_eq!((&dry["status"], &dry["entries"]), (&json!("cancelled"), &json!(1)), "{dry}");
    assert_eq!(dry["objects"], json!([source_key(b"content")]));
    let refused = erase(&[]).refusal();
    assert!(refused.contains("1 job with 1 entry would be removed for good"), "{refused}");
    assert!(source.is_file());
    let erased = erase(&["--yes", "--json"]).ok().json_lines().remove(0);
    assert_eq!(erased, json!({ "jobs": 1, "entries": 1, "files": 0 }));
    assert!(!source.exists());
    assert_eq!(http(address, "GET", &format!("/api/jobs/{id}"), &[], None).await.0, 404);
    let unknown = erase(&["--yes"]).refusal();
    assert!(unknown.contains(&format!("there is no job {id}")), "{unknown}");
    let nothing = instance.run(&["retention", "--jobs", "--before", "2100-01"]).ok();
    assert!(nothing.stderr.contains("no partition of jobs from before 2100-01"), "{}", nothing.stderr);
    instance.run(&["verify"]).ok();
}
