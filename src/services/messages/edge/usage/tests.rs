//! Quotas and their cache, without a database.

use sqlx::postgres::PgPoolOptions;

use super::*;

const FULL: Usage = Usage { messages: 3, bytes: 15 };
const THREE: Quota = Quota { messages: 3, bytes: 0 };

fn counted(used: Usage, age: Duration) -> Arc<CachedUsage> {
    CachedUsage::of(
        Instant::now().checked_sub(age).expect("the machine runs for seconds"),
        used,
        HashMap::new(),
    )
}

/// Nothing listens at port 1 of the loopback address, so a count fails, which shows that it was
/// attempted.
#[tokio::test]
async fn a_full_inbox_is_counted_again_once_a_second_by_one_request() {
    let wait = Duration::from_millis(200);
    let pool = PgPoolOptions::new().acquire_timeout(wait).connect_lazy("postgres://127.0.0.1:1/x").unwrap();
    let quotas = Quotas::new(Quota::default(), THREE, Quota::default());
    let (cache, key) = (&quotas.recipients, "r".to_owned());
    cache.usages.insert(key.clone(), counted(FULL, Duration::ZERO)).await;
    for _ in 0..100 {
        let refused = quotas.take(&pool, "s", &key, 5).await;
        assert_eq!(refused.unwrap(), Some(LimitExceeded::Inbox));
    }
    // Two requests saw an old count. One has counted again; the other must not cause another count.
    let (old, new) = (counted(FULL, REFUSAL_AGE_MAX), counted(FULL, Duration::ZERO));
    cache.usages.insert(key.clone(), Arc::clone(&new)).await;
    cache.invalidate(&key, &old).await;
    assert!(Arc::ptr_eq(&cache.usage(&pool, &key, CHECKPOINT_AGE_MAX).await.unwrap(), &new));
    cache.usages.insert(key.clone(), old).await;
    assert!(quotas.take(&pool, "s", &key, 5).await.is_err());
}

#[test]
fn of_two_messages_at_once_one_takes_the_last_room() {
    let quotas = Quotas::new(THREE, THREE, Quota::default());
    let two = Usage { messages: 2, bytes: 10 };
    // Both requests have read these counts before either takes room.
    let (sent, inbox) = (counted(two, Duration::ZERO), counted(two, Duration::ZERO));
    let take = || quotas.take_counted([Some(&sent), Some(&inbox)], "s", 5, false);
    assert_eq!(take(), Outcome::Counted);
    let exceeded = LimitExceeded::Sent { unit: "messages", limit: 3, used: 3 };
    assert_eq!(take(), Outcome::Exceeded(exceeded));
    // By an old count a message is refused only when it cannot be counted again.
    let old = counted(FULL, REFUSAL_AGE_MAX);
    assert_eq!(quotas.take_counted([Some(&old), None], "s", 5, false), Outcome::CountAgain);
    assert!(matches!(quotas.take_counted([Some(&old), None], "s", 5, true), Outcome::Exceeded(_)));
}

#[test]
fn a_message_that_one_quota_refuses_is_counted_in_neither() {
    let quotas = Quotas::new(THREE, THREE, Quota::default());
    let (sent, full) = (counted(Usage::default(), Duration::ZERO), counted(FULL, Duration::ZERO));
    let refused = quotas.take_counted([Some(&sent), Some(&full)], "s", 5, false);
    assert_eq!(refused, Outcome::Exceeded(LimitExceeded::Inbox));
    assert_eq!((sent.counts().used, full.counts().used), (Usage::default(), FULL));
}
