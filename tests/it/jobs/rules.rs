//! Unique keys and microseconds, which both Rust and SQL compute: they agree.

use quipu::services::jobs::decide::unique_key;

use crate::support::database::TestDatabase;

#[tokio::test]
async fn unique_keys_are_the_same_in_sql() {
    let database = TestDatabase::new().await;
    let client = database.owner().await;
    for (job_type, hash, key) in [
        ("pdf", Some("abc"), None),
        ("pdf", Some("abc"), Some("once")),
        ("é", Some("ü b"), None),
        ("pdf", None, Some("é")),
        ("pdf", None, None),
    ] {
        let row =
            client.query_one("SELECT quipu_job_key($1, $2, $3)", &[&job_type, &hash, &key]).await.unwrap();
        let told: Option<Vec<u8>> = row.get(0);
        let expected = unique_key(job_type, hash, key).map(|key| key.to_vec());
        assert_eq!(told, expected, "{job_type} {hash:?} {key:?}");
    }
}

#[tokio::test]
async fn microseconds_are_exact() {
    let database = TestDatabase::new().await;
    let client = database.owner().await;
    for us in [0_i64, 1, 999_999, 1_700_000_000_123_457, 4_102_444_800_000_001] {
        let told: i64 = client.query_one("SELECT quipu_us(quipu_at_us($1))", &[&us]).await.unwrap().get(0);
        assert_eq!(told, us);
    }
}
