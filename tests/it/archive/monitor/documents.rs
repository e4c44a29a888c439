//! Information documents, valid and malformed.

use serde_json::{Value, json};

use super::kit::{Bench, failure};
use super::stub::{Manner, Page, Stub};

async fn checked(pages: Vec<Page>) -> (Bench, Vec<Stub>) {
    let mut bench = Bench::new().await;
    let mut stubs = Vec::new();
    for page in pages {
        let stub = Stub::start(Manner::Honest, page).await;
        bench.add(&stub.url(), "operator").await;
        stubs.push(stub);
    }
    bench.round().await;
    (bench, stubs)
}

#[tokio::test]
async fn n_11_3_a_document_is_stored_as_what_it_is_however_its_fields_are_typed() {
    let odd = json!({
        "name": 42, "description": "words", "supported_nips": ["1", "eleven"], "limitation": null, "pubkey": ["x"],
        "software": "https://example.com", "retention": [{ "kinds": [0] }], "icon": "a\u{0}b"
    });
    let (bench, stubs) = checked(vec![Page::document(&odd)]).await;
    let snapshot = bench.newest(&stubs[0].url()).await;
    let mut kept = odd.clone();
    kept["icon"] = json!("a\u{2400}b");
    assert_eq!(Value::Object(snapshot.nip11.unwrap()), kept);
    assert_eq!(snapshot.detail["nip11"], json!({ "replaced": ["nul"] }));

    // Only values of the column's type are stored in columns.
    let typed = "SELECT count(*) FROM relay_metadata_latest WHERE name IS NULL AND pubkey IS NULL AND limitation IS NULL
                 AND description = 'words' AND supported_nips = '[\"1\", \"eleven\"]' AND nip11_success
                 AND extra_fields = '{\"name\": 42, \"pubkey\": [\"x\"], \"limitation\": null, \"retention\": [{\"kinds\": [0]}]}'";
    assert_eq!(bench.count(typed).await, 1);
}

#[tokio::test]
async fn n_11_3_what_is_no_document_is_a_failure_with_its_reason_and_no_outage() {
    let huge = format!("{{\"name\":\"{}\"}}", "x".repeat(30_000_000));
    let shapes = [
        ("http_status", Page::new("404 Not Found", "text/plain", "no")),
        ("not_json", Page::new("200 OK", "text/html", "<html>hello</html>")),
        ("not_an_object", Page::new("200 OK", "application/nostr+json", "[1,2]")),
        ("not_json", Page::new("200 OK", "application/nostr+json", "{\"name\":")),
        ("too_large", Page::new("200 OK", "application/nostr+json", huge)),
        ("too_many_redirects", Page::redirect("/")),
    ];
    let (bench, stubs) = checked(shapes.iter().map(|(_, page)| page.clone()).collect()).await;
    for ((reason, _), stub) in shapes.iter().zip(&stubs) {
        let snapshot = bench.newest(&stub.url()).await;
        assert_eq!(failure(&snapshot, "nip11")["reason"], *reason, "{snapshot:?}");
        assert!(snapshot.nip11.is_none() && snapshot.is_openable && snapshot.is_readable, "{snapshot:?}");
    }
    assert_eq!(bench.count("SELECT count(*) FROM nip11").await, 0);
    assert_eq!(bench.count("SELECT count(*) FROM readable_relays").await, 6);
}

#[tokio::test]
async fn n_11_3_a_wrong_content_type_is_noted() {
    let (bench, stubs) = checked(vec![Page::new("200 OK", "text/plain", "{\"name\":\"n\"}")]).await;
    let snapshot = bench.newest(&stubs[0].url()).await;
    assert_eq!(Value::Object(snapshot.nip11.unwrap()), json!({ "name": "n" }));
    assert_eq!(snapshot.detail["nip11"], json!({ "content_type": "text/plain" }));
    assert_eq!(snapshot.detail["http"], json!({ "server": "stub/1" }));
}

#[tokio::test]
async fn an_unchanged_document_and_an_unchanged_result_are_not_stored_again() {
    let document = json!({ "name": "same", "supported_nips": [1, 11] });
    let (mut bench, stubs) = checked(vec![Page::document(&document), Page::document(&document)]).await;
    for _ in 0..2 {
        bench.next_round();
        bench.round().await;
    }
    assert_eq!(bench.count("SELECT count(*) FROM relay_metadata").await, 6);
    assert_eq!(bench.count("SELECT count(*) FROM nip11").await, 1);
    assert_eq!(bench.count("SELECT count(*) FROM nip66").await, 1);
    let times =
        "SELECT count(*) FROM relay_metadata WHERE rtt_open > 0 AND rtt_read > 0 AND rtt_write IS NULL";
    assert_eq!(bench.count(times).await, 6);
    let shown = "SELECT count(*) FROM relay_metadata_latest WHERE rtt_open > 0 AND rtt_read > 0 AND readable";
    assert_eq!(bench.count(shown).await, 2);

    // A changed document is stored.
    let url = stubs[0].url();
    assert_eq!(bench.snapshots(&url).await.len(), 3);
    let times: Vec<i64> = bench.snapshots(&url).await.iter().map(|snapshot| snapshot.generated_at).collect();
    assert!(times.is_sorted_by(|newer, older| newer > older), "{times:?}");
}
