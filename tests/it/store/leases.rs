//! Leases: one holder at a time, and a fencing token that only grows.

use std::time::Duration;

use quipu::store::lease::{Lease, Leases};

use super::kit::Kit;
use crate::support::proxy::eventually;

const LONG: Duration = Duration::from_mins(1);

async fn take(leases: &Leases, length: Duration) -> Option<i64> {
    let held = leases.take(&["sync/1".to_owned()], length).await.unwrap();
    held.first().map(|Lease { token, .. }| *token)
}

fn pair(kit: &Kit) -> (Leases, Leases) {
    (Leases::new(kit.pools.write.clone()), Leases::new(kit.pools.write.clone()))
}

#[tokio::test]
async fn a_lease_is_held_by_one_and_renewed_under_its_token() {
    let kit = Kit::new().await;
    let (one, other) = pair(&kit);
    let token = take(&one, LONG).await.unwrap();
    assert_eq!(take(&other, LONG).await, None);
    assert_eq!(take(&one, LONG).await, Some(token));
    assert_eq!(take(&other, LONG).await, None);
}

#[tokio::test]
async fn of_many_processes_one_gets_each_lease() {
    let kit = Kit::new().await;
    let names: Vec<String> = (0..20).map(|n| format!("sync/{n}")).collect();
    let mut takers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (leases, names) = (Leases::new(kit.pools.write.clone()), names.clone());
        takers.spawn(async move { leases.take(&names, LONG).await.unwrap() });
    }
    let mut held: Vec<String> =
        takers.join_all().await.into_iter().flatten().map(|lease| lease.name).collect();
    held.sort();
    let mut expected = names;
    expected.sort();
    assert_eq!(held, expected);
}

#[tokio::test]
async fn an_expired_lease_is_taken_over_with_a_greater_token() {
    let kit = Kit::new().await;
    let (one, other) = pair(&kit);
    let first = take(&one, Duration::from_millis(50)).await.unwrap();
    let second = std::sync::atomic::AtomicI64::new(0);
    eventually("the lease expires", || async {
        let taken = take(&other, LONG).await;
        second.store(taken.unwrap_or(0), std::sync::atomic::Ordering::Relaxed);
        taken.is_some()
    })
    .await;
    assert!(second.into_inner() > first);
    assert_eq!(take(&one, LONG).await, None, "the previous holder does not get it back");
}

#[tokio::test]
async fn truncating_the_lease_table_ends_a_lease_but_never_repeats_a_token() {
    let kit = Kit::new().await;
    let (one, other) = pair(&kit);
    let first = take(&one, LONG).await.unwrap();
    kit.superuser().await.batch_execute("TRUNCATE lease RESTART IDENTITY").await.unwrap();
    assert!(take(&other, LONG).await.unwrap() > first);
    assert_eq!(take(&one, LONG).await, None);
}

#[tokio::test]
async fn a_lease_given_back_is_free_and_only_its_holder_can_give_it() {
    let kit = Kit::new().await;
    let (one, other) = pair(&kit);
    let names = ["sync/1".to_owned()];
    let first = take(&one, LONG).await.unwrap();
    other.release(&names).await.unwrap();
    assert_eq!(take(&other, LONG).await, None);
    one.release(&names).await.unwrap();
    assert!(take(&other, LONG).await.unwrap() > first);
}
