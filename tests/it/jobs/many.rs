//! All jobs of one status are retried or cancelled by one request, which a preview shows before.

use serde_json::{Value, json};

use super::kit::{Job, PDF, Room, number};
use crate::support::database::TestDatabase;

async fn refused(room: &Room, path: &str, body: Value) -> String {
    let (status, answer) = room.post(path, &body).await;
    assert_eq!(status, 400, "{path} {body}: {answer}");
    answer["field"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn all_pending_jobs_of_a_type_are_previewed_cancelled_and_retried_and_no_other() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    for _ in 0..12 {
        room.submit(PDF).await;
    }
    let other = room.submit(Job { job_type: "zip", ..PDF }).await.job;
    let claimed = room.claim("w", 1, 60).await;
    let all = json!({ "status": "pending", "type": "pdf", "why": "wrong folder" });

    let preview = room
        .ok("/api/jobs/cancel-all", &json!({ "status": "pending", "type": "pdf", "preview": true }))
        .await;
    assert_eq!((&preview["matched"], &preview["more"]), (&json!(11), &json!(false)), "{preview}");
    assert_eq!(preview["first"].as_array().unwrap().len(), 10);
    assert_eq!(number(&database, "SELECT count(*) FROM job_states WHERE status = 'cancelled'").await, 0);

    let part =
        room.ok("/api/jobs/cancel-all", &json!({ "status": "pending", "type": "pdf", "limit": 4 })).await;
    assert_eq!((&part["changed"], &part["more"]), (&json!(4), &json!(true)), "{part}");
    let rest = room.ok("/api/jobs/cancel-all", &all).await;
    assert_eq!(
        (&rest["changed"], &rest["passed_over"], &rest["more"]),
        (&json!(7), &json!(0), &json!(false))
    );
    let again = room.ok("/api/jobs/cancel-all", &all).await;
    assert_eq!(again["changed"], 0, "{again}");
    let left = "SELECT count(*) FROM job_states WHERE status IN ('pending', 'running')";
    assert_eq!(number(&database, left).await, 2, "the leased job and that of the other type");
    let why = "SELECT count(*) FROM job_history WHERE kind = 'cancelled' AND why = 'wrong folder'";
    assert_eq!(number(&database, why).await, 7);

    let back = room.ok("/api/jobs/retry-all", &json!({ "status": "cancelled", "priority": 1 })).await;
    assert_eq!(back["changed"], 11, "{back}");
    let first = "SELECT count(*) FROM job_states WHERE status = 'pending' AND priority = 1";
    assert_eq!(number(&database, first).await, 11);
    room.complete(&claimed[0], "w").await.unwrap();
    let (_, job) = room.get(&format!("/api/jobs/{other}")).await;
    assert_eq!(job["status"], "pending");
}

#[tokio::test]
async fn of_two_requests_at_the_same_time_each_job_counts_for_one() {
    const JOBS: i64 = 200;
    let database = TestDatabase::new().await;
    let rooms = [Room::on(&database).await, Room::on(&database).await];
    let [one, two] = &rooms;
    for _ in 0..JOBS {
        one.submit(PDF).await;
    }
    let cancel = &json!({ "status": "pending" });
    let cancel_all = async |room: &Room| room.ok("/api/jobs/cancel-all", cancel).await;
    let (first, second) = tokio::join!(cancel_all(one), cancel_all(two));
    let of = |answer: &Value, member: &str| answer[member].as_i64().unwrap();
    assert_eq!(of(&first, "changed") + of(&second, "changed"), JOBS, "{first} {second}");
    let cancelled = "SELECT count(*) FROM job_log WHERE kind = 'cancelled'";
    assert_eq!(number(&database, cancelled).await, JOBS);
    println!("passed over: {} and {}", first["passed_over"], second["passed_over"]);
}

#[tokio::test]
async fn the_status_has_to_be_named_and_has_to_allow_it() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    for (path, body, field) in [
        ("/api/jobs/cancel-all", json!({}), "status"),
        ("/api/jobs/cancel-all", json!({ "status": "completed" }), "status"),
        ("/api/jobs/retry-all", json!({ "status": "pending" }), "status"),
        ("/api/jobs/retry-all", json!({ "status": "dead", "limit": 0 }), "limit"),
        ("/api/jobs/retry-all", json!({ "status": "dead", "limit": 1001 }), "limit"),
        ("/api/jobs/retry-all", json!({ "status": "dead", "priority": 6 }), "priority"),
        ("/api/jobs/retry-all", json!({ "status": 7 }), "body"),
    ] {
        assert_eq!(refused(room, path, body.clone()).await, field, "{path} {body}");
    }
    let pending = room.submit(PDF).await.job;
    for (path, status) in [("/api/jobs/cancel-all", "pending"), ("/api/jobs/retry-all", "failed")] {
        for misspelt in ["tpye", "job_type", "dry_run"] {
            let (code, answer) = room.post(path, &json!({ "status": status, misspelt: "pdf" })).await;
            assert_eq!((code, &answer["field"]), (400, &json!("body")), "{path} {misspelt}: {answer}");
            assert!(answer.to_string().contains(&format!("`{misspelt}`")), "{path}: {answer}");
        }
    }
    let (_, untouched) = room.get(&format!("/api/jobs/{pending}")).await;
    assert_eq!(untouched["status"], "pending");
    let reader = room.token("reader", false, &["read"]).await;
    let headers = [("authorization", &*format!("Bearer {reader}"))];
    let body = json!({ "status": "dead" });
    let (status, _) =
        super::kit::http(room.address, "POST", "/api/jobs/retry-all", &headers, Some(&body)).await;
    assert_eq!(status, 403);
}
