//! What is committed about blobs, and what the queries make of it.

use std::collections::BTreeSet;

use quipu::base::Sha256;
use quipu::services::blossom::append::{BlobAnswer, BlobJournal, BlobRefusal, Changes};
use quipu::services::blossom::command::{
    BlobCommand, BlobReport, NewOwner, ReplicaResult, StoreBlob, WantedBlob,
};
use quipu::services::blossom::event::{BlobFacts, Ownership, Proof, ReplicaEvent, ReplicaState, Usage};
use quipu::services::blossom::read::{self, ListQuestion, RepairQuestion};
use quipu::store::Hints;
use quipu::store::append::Writer;
use quipu::store::removal::blobs::{RemovedBlob, erase_blob, preview_blob};

use crate::store::kit::{Kit, number};

const A: &str = "https://a.example.com";
const B: &str = "https://b.example.com";
const C: &str = "https://c.example.com";

const ALICE: [u8; 32] = [1; 32];
const BOB: [u8; 32] = [2; 32];

fn writer(kit: &mut Kit) -> Writer<BlobJournal> {
    kit.writer(BlobJournal { changes: Changes::new(Hints::default()) })
}

fn happened(upstream: &str, event: ReplicaEvent) -> ReplicaResult {
    ReplicaResult { upstream: upstream.to_owned(), event, why: None }
}

fn owner(pubkey: [u8; 32]) -> NewOwner {
    NewOwner { pubkey, how: Ownership::Uploaded, origin: None, bytes_max: None, blobs_max: None }
}

/// A blob of ten bytes whose hash is that of `name`, accepted by these upstreams.
fn store(name: &str, owner: Option<NewOwner>, upstreams: &[&str]) -> BlobCommand {
    let facts =
        BlobFacts { sha256: Sha256::of(name.as_bytes()), size: 10, media_type: "image/png".to_owned() };
    let results = upstreams.iter().map(|upstream| happened(upstream, ReplicaEvent::Accepted)).collect();
    BlobCommand::Store(StoreBlob { facts, owner, results, actor: "test".to_owned() })
}

fn replicas(name: &str, results: Vec<ReplicaResult>) -> BlobCommand {
    BlobCommand::Replicas { sha256: Sha256::of(name.as_bytes()), results, actor: "quipu".to_owned() }
}

fn disown(name: &str, owner: [u8; 32]) -> BlobCommand {
    BlobCommand::Disown { sha256: Sha256::of(name.as_bytes()), owner, actor: "test".to_owned() }
}

async fn states(kit: &Kit, name: &str) -> Vec<(String, ReplicaState)> {
    let known = read::look_up(&kit.pools, &Sha256::of(name.as_bytes())).await.unwrap().blob.unwrap();
    known.replicas.into_iter().map(|replica| (replica.upstream, replica.state)).collect()
}

#[tokio::test]
async fn a_blob_is_stored_once_and_each_key_owns_it_once() {
    let mut kit = Kit::new().await;
    let writer = writer(&mut kit);
    let new = |answer| matches!(answer, BlobAnswer::Stored { is_new: true, .. });
    let known = |answer| matches!(answer, BlobAnswer::Stored { is_new: false, .. });
    assert!(new(writer.append(store("x", None, &[A])).await.unwrap()), "a failed upload");
    assert!(new(writer.append(store("x", Some(owner(ALICE)), &[A, B])).await.unwrap()));
    assert!(known(writer.append(store("x", Some(owner(ALICE)), &[A])).await.unwrap()));
    assert!(new(writer.append(store("x", Some(owner(BOB)), &[])).await.unwrap()));
    let sha256 = Sha256::of(b"x");
    let found = read::look_up(&kit.pools, &sha256).await.unwrap().blob.unwrap();
    assert_eq!((found.owners, found.replicas.len(), found.facts.size), (2, 2, 10));
    assert_eq!(read::owners(&kit.pools, &sha256, 1).await.unwrap().len(), 1);
    assert!(read::is_owner(&kit.pools, &sha256, &ALICE).await.unwrap());
    let disowned = |was_owner, owners_left| BlobAnswer::Disowned { was_owner, owners_left };
    assert_eq!(writer.append(disown("x", ALICE)).await.unwrap(), disowned(true, 1));
    assert_eq!(writer.append(disown("x", ALICE)).await.unwrap(), disowned(false, 1));
    assert_eq!(writer.append(disown("x", BOB)).await.unwrap(), disowned(true, 0));
    assert_eq!(read::usage(&kit.pools, &BOB).await.unwrap(), Usage::default());
    assert_eq!(read::unkept(&kit.pools, None, 10).await.unwrap(), [sha256]);
    let kinds: Vec<String> =
        read::history(&kit.pools, &sha256, 100).await.unwrap().into_iter().map(|entry| entry.kind).collect();
    let expected = "seen accepted uploaded accepted accepted accepted uploaded disowned disowned";
    assert_eq!(kinds.join(" "), expected);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

/// A bad answer about one upload does not undo what is known of a copy.
#[tokio::test]
async fn the_state_of_a_copy_follows_what_was_seen_of_it() {
    let mut kit = Kit::new().await;
    let writer = writer(&mut kit);
    writer.append(store("x", Some(owner(ALICE)), &[A, B])).await.unwrap();
    for (event, state) in [
        (ReplicaEvent::Failed, ReplicaState::Accepted),
        (ReplicaEvent::Readable, ReplicaState::Readable),
        (ReplicaEvent::Accepted, ReplicaState::Readable),
        (ReplicaEvent::Failed, ReplicaState::Readable),
        (ReplicaEvent::Proven(Proof::Hash), ReplicaState::Readable),
        (ReplicaEvent::NotDeleted, ReplicaState::Readable),
        (ReplicaEvent::Lost, ReplicaState::Lost),
        (ReplicaEvent::Failed, ReplicaState::Failed),
        (ReplicaEvent::Accepted, ReplicaState::Accepted),
        (ReplicaEvent::Deleted, ReplicaState::Deleted),
        (ReplicaEvent::Lost, ReplicaState::Deleted),
        (ReplicaEvent::NotDeleted, ReplicaState::Deleted),
        (ReplicaEvent::Accepted, ReplicaState::Accepted),
    ] {
        writer.append(replicas("x", vec![happened(A, event)])).await.unwrap();
        let states = states(&kit, "x").await;
        assert!(states.contains(&(A.to_owned(), state)), "{event:?}: {states:?}");
    }
    // A copy that was never known is not made up by a refused deletion.
    writer.append(replicas("x", vec![happened(C, ReplicaEvent::NotDeleted)])).await.unwrap();
    assert_eq!(states(&kit, "x").await.len(), 2);
    // And nothing is recorded about a blob that was never seen.
    writer.append(replicas("y", vec![happened(A, ReplicaEvent::Readable)])).await.unwrap();
    let owner = kit.database.owner().await;
    let strange =
        format!("SELECT count(*) FROM blob_log WHERE sha256 = decode('{}', 'hex')", Sha256::of(b"y"));
    assert_eq!(number(&owner, &strange).await, 0);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn limits_hold_for_uploads_that_come_at_once() {
    let mut kit = Kit::new().await;
    let (one, other) = (writer(&mut kit), writer(&mut kit));
    let limited = || NewOwner { blobs_max: Some(3), ..owner(ALICE) };
    let uploads = (0..10).map(|n| {
        let writer = if n % 2 == 0 { &one } else { &other };
        writer.append(store(&n.to_string(), Some(limited()), &[A]))
    });
    let answers = futures_util::future::join_all(uploads).await;
    let refused = BlobAnswer::Refused(BlobRefusal::OverBlobs { max: 3 });
    let count = answers.iter().filter(|answer| *answer.as_ref().unwrap() == refused).count();
    assert_eq!(count, 7, "{answers:?}");
    assert_eq!(read::usage(&kit.pools, &ALICE).await.unwrap(), Usage { blobs: 3, bytes: 30 });
    let bytes = NewOwner { bytes_max: Some(39), ..owner(ALICE) };
    let refused = BlobAnswer::Refused(BlobRefusal::OverBytes { max: 39 });
    assert_eq!(one.append(store("more", Some(bytes), &[A])).await.unwrap(), refused);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn pages_of_a_list_neither_repeat_nor_lose_blobs() {
    let mut kit = Kit::new().await;
    let writer = writer(&mut kit);
    // Most of them in the same second.
    let stores = (0..25).map(|n| writer.append(store(&n.to_string(), Some(owner(ALICE)), &[A])));
    futures_util::future::try_join_all(stores).await.unwrap();
    let mut question = ListQuestion { owner: ALICE, after: None, since: None, until: None, limit: 7 };
    let (mut seen, mut last) = (BTreeSet::new(), i64::MAX);
    loop {
        let page = read::list_page(&kit.pools, &question).await.unwrap();
        let Some(end) = page.last() else { break };
        let (uploaded, sha256) = (end.uploaded, end.facts.sha256);
        question.after = Some((uploaded, sha256));
        for blob in page {
            assert!(blob.uploaded <= last && seen.insert(blob.facts.sha256), "{blob:?}");
            assert_eq!(blob.upstreams, [A]);
            last = blob.uploaded;
        }
        // The list goes on behind a blob that its owner deletes.
        writer.append(disown_hash(sha256)).await.unwrap();
        let place = read::list_place(&kit.pools, &ALICE, &sha256).await.unwrap();
        assert_eq!(place, Some(uploaded));
    }
    assert_eq!(seen.len(), 25);
    let never = read::list_place(&kit.pools, &ALICE, &Sha256::of(b"another")).await.unwrap();
    assert_eq!(never, None, "never in this list");
    question = ListQuestion { after: None, until: Some(1_000), ..question };
    assert_eq!(read::list_page(&kit.pools, &question).await.unwrap(), []);
}

fn disown_hash(sha256: Sha256) -> BlobCommand {
    BlobCommand::Disown { sha256, owner: ALICE, actor: "test".to_owned() }
}

#[tokio::test]
async fn what_has_too_few_copies_is_found_rarest_first_also_when_an_upstream_leaves_the_settings() {
    let mut kit = Kit::new().await;
    let writer = writer(&mut kit);
    for (name, upstreams) in [("one", &[A][..]), ("two", &[A, B]), ("three", &[A, B, C]), ("none", &[])] {
        writer.append(store(name, Some(owner(ALICE)), upstreams)).await.unwrap();
    }
    writer.append(store("without an owner", None, &[A])).await.unwrap();
    writer.append(replicas("three", vec![happened(C, ReplicaEvent::Readable)])).await.unwrap();
    let find = async |upstreams: &[&str], target| {
        let upstreams: Vec<String> = upstreams.iter().map(|upstream| (*upstream).to_owned()).collect();
        let mut question = RepairQuestion { upstreams: &upstreams, target, after: None, most: 2 };
        let mut found = Vec::new();
        loop {
            let page = read::under_replicated(&kit.pools, &question).await.unwrap();
            found.extend(page.blobs.into_iter().map(|blob| blob.facts.sha256));
            match page.next {
                Some(next) => question.after = Some(next),
                None => return found,
            }
        }
    };
    let names = |names: &[&str]| names.iter().map(|name| Sha256::of(name.as_bytes())).collect::<Vec<_>>();
    assert_eq!(find(&[A, B, C], 2).await, names(&["none", "one"]));
    assert_eq!(find(&[A, B, C], 3).await, names(&["none", "one", "two"]));
    assert_eq!(find(&[B, C], 2).await, names(&["none", "one", "two"]), "the copies at A do not count");
    let unverified = read::unverified(&kit.pools, &[C.to_owned()], None, 10).await.unwrap();
    assert!(unverified.is_empty(), "{unverified:?}");
    let all = [A, B].map(str::to_owned);
    let first = read::unverified(&kit.pools, &all, None, 3).await.unwrap();
    let rest = read::unverified(&kit.pools, &all, first.last(), 10).await.unwrap();
    assert_eq!((first.len(), rest.len()), (3, 3));
    let swept = read::sweep(&kit.pools, None, 10).await.unwrap();
    assert_eq!(swept.len(), 1);
    let totals = read::totals(&kit.pools, 3).await.unwrap();
    assert_eq!((totals.kept, totals.under_replicated, totals.unavailable, totals.owners), (4, 3, 1, 1));
}

#[tokio::test]
async fn wanted_blobs_are_open_until_they_are_there_missed_or_deleted() {
    let mut kit = Kit::new().await;
    let writer = writer(&mut kit);
    let wanted = |name: &str, url: Option<&str>| WantedBlob {
        sha256: Sha256::of(name.as_bytes()),
        owner: ALICE,
        event_id: [7; 32],
        url: url.map(str::to_owned),
    };
    let references = vec![
        wanted("one", Some("https://a.example.com/1")),
        wanted("one", Some("https://b.example.com/1")),
        wanted("one", Some("https://b.example.com/1")),
        wanted("two", None),
        wanted("three", None),
    ];
    for _ in 0..2 {
        writer.append(BlobCommand::Want(references.clone())).await.unwrap();
    }
    let open = async || {
        let page = read::wanted_page(&kit.pools, None, 3_600.0, 10).await.unwrap();
        assert_eq!(page.next, None);
        page.wanted.into_iter().map(|wanted| (wanted.sha256, wanted.urls.len())).collect::<BTreeSet<_>>()
    };
    let names = |names: &[(&str, usize)]| {
        names.iter().map(|(name, urls)| (Sha256::of(name.as_bytes()), *urls)).collect::<BTreeSet<_>>()
    };
    assert_eq!(open().await, names(&[("one", 2), ("two", 0), ("three", 0)]));
    let adopted = NewOwner { how: Ownership::Adopted, ..owner(ALICE) };
    writer.append(store("one", Some(adopted), &[A])).await.unwrap();
    let missed =
        BlobCommand::Missed { sha256: Sha256::of(b"two"), why: "https://a.example.com: 404".to_owned() };
    writer.append(missed).await.unwrap();
    assert_eq!(open().await, names(&[("three", 0)]));
    writer.append(disown("one", ALICE)).await.unwrap();
    assert_eq!(open().await, names(&[("three", 0)]), "what its owner has deleted is not fetched again");
    let listed = read::missed(&kit.pools, 10).await.unwrap();
    assert_eq!(listed.iter().map(|missed| missed.sha256).collect::<Vec<_>>(), [Sha256::of(b"two")]);

    let follow = |is_on| BlobCommand::Follow { pubkey: BOB, is_on, actor: "local".to_owned() };
    for (is_on, followed) in [(true, 1), (true, 1), (false, 0), (true, 1)] {
        writer.append(follow(is_on)).await.unwrap();
        assert_eq!(read::followed_keys(&kit.pools, 10).await.unwrap().len(), followed);
    }
    let owner = kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT count(*) FROM blob_follows").await, 3);
}

#[tokio::test]
async fn a_banned_blob_gets_no_owner_and_an_erased_one_leaves_everywhere_and_stays_banned() {
    let mut kit = Kit::new().await;
    let writer = writer(&mut kit);
    let sha256 = Sha256::of(b"x");
    let ban = || BlobCommand::Ban { sha256, why: "illegal".to_owned(), actor: "local".to_owned() };
    let unban = || BlobCommand::Unban { sha256, actor: "local".to_owned() };
    let banned = |why: &str| BlobAnswer::Refused(BlobRefusal::Banned { why: why.to_owned() });
    writer.append(store("x", Some(owner(ALICE)), &[A, B])).await.unwrap();
    writer.append(ban()).await.unwrap();
    assert_eq!(writer.append(store("x", Some(owner(BOB)), &[A])).await.unwrap(), banned("illegal"));
    let question = ListQuestion { owner: ALICE, after: None, since: None, until: None, limit: 7 };
    assert_eq!(read::list_page(&kit.pools, &question).await.unwrap(), []);
    writer.append(unban()).await.unwrap();
    let stored = writer.append(store("x", Some(owner(BOB)), &[A])).await.unwrap();
    assert!(matches!(stored, BlobAnswer::Stored { is_new: true, .. }), "{stored:?}");
    let report = || {
        BlobCommand::Report(BlobReport {
            event_id: [9; 32],
            reporter: BOB,
            blobs: vec![(sha256, "malware".to_owned())],
            content: "bad\0".to_owned(),
            event: "{}".to_owned(),
        })
    };
    let want = || BlobCommand::Want(vec![WantedBlob { sha256, owner: BOB, event_id: [7; 32], url: None }]);
    for command in [report(), report(), want()] {
        writer.append(command).await.unwrap();
    }

    let urls = kit.database.urls();
    let preview = preview_blob(urls.owner().unwrap(), &sha256).await.unwrap();
    assert_eq!((preview.owners, preview.places.len()), (2, 2));
    let left = erase_blob(urls.owner().unwrap(), &sha256, "a test").await.unwrap();
    assert_eq!(left, preview);
    assert_eq!((left.holds.reports, left.holds.references), (1, 1));
    assert!(erase_blob(urls.owner().unwrap(), &Sha256::of(b"y"), "").await.is_err(), "a reason is needed");
    assert_eq!(read::look_up(&kit.pools, &sha256).await.unwrap().blob, None);
    assert_eq!(read::usage(&kit.pools, &ALICE).await.unwrap(), Usage::default());
    for command in
        [unban(), report(), want(), ban(), replicas("x", vec![happened(A, ReplicaEvent::Readable)])]
    {
        assert_eq!(writer.append(command).await.unwrap(), BlobAnswer::Recorded);
    }
    assert_eq!(writer.append(store("x", Some(owner(ALICE)), &[A])).await.unwrap(), banned("erased"));
    let again = erase_blob(urls.owner().unwrap(), &sha256, "a test").await.unwrap();
    assert_eq!(again.holds, RemovedBlob::default());
    assert_eq!(kit.problems().await, Vec::<String>::new());
}
