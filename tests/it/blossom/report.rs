//! Reports.

use nostr_sdk::{EventBuilder, JsonUtil as _, Kind, Tag};

use super::client_kit::{User, content, fetch, sha256};
use super::kit::{Room, number};
use crate::support::database::TestDatabase;

fn report(user: &User, kind: u16, tags: &[[&str; 3]]) -> String {
    let tags = tags.iter().map(|tag| Tag::parse(*tag).unwrap());
    let event = EventBuilder::new(Kind::from(kind), "it is").tags(tags);
    event.sign_with_keys(&user.keys).unwrap().as_json()
}

/// BL-09.1, BL-09.2, BL-09.3, BL-09.5
#[tokio::test]
async fn bl_09_01_to_03_and_05_a_signed_report_about_a_known_blob_is_kept_once() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let user = User::new(2);
    let blob = content(1, 100);
    let (hash, unknown) = (sha256(&blob), sha256(b"unknown"));
    assert_eq!(User::new(1).upload(room.address, &blob, "image/png").await.status, 201);
    let url = room.url("/report");
    let good = report(&user, 1_984, &[["x", &hash, "malware"], ["x", &unknown, "spam"]]);
    for (body, status) in [
        (good.clone(), 200),
        (good.clone(), 200),
        (good.replace("it is", "it was"), 400),
        (report(&user, 1, &[["x", &hash, "malware"]]), 400),
        (report(&user, 1_984, &[["x", &hash, "unheard-of"]]), 400),
        (report(&user, 1_984, &[["x", &unknown, "malware"]]), 404),
        ("no json".to_owned(), 400),
        (String::new(), 400),
    ] {
        let answer = fetch("PUT", &url, &[("content-type", "application/json")], body.as_bytes()).await;
        assert_eq!(answer.status, status, "{body}: {:?}", answer.refusal());
    }
    assert_eq!(number(&database, "SELECT count(*) FROM blob_reports").await, 1);
    assert_eq!(room.get(&format!("/{hash}")).await.status, 200, "a report changes nothing by itself");
}

#[tokio::test]
async fn reports_of_one_address_are_limited_and_large_ones_refused() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let url = room.url("/report");
    let (status, reason) = fetch("PUT", &url, &[], &[b' '; 8_193]).await.refusal();
    assert!(status == 413 && reason.contains("8192 bytes"), "{status} {reason}");
    let mut statuses = vec![fetch("PUT", &url, &[], &[b' '; 8_192]).await.status];
    for _ in 0..11 {
        statuses.push(fetch("PUT", &url, &[], b"{}").await.status);
    }
    assert!(statuses.starts_with(&[400, 400, 400]) && statuses.ends_with(&[429]), "{statuses:?}");
}
