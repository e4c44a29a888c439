//! Uploads to upstreams that follow a script, in paused time.

use std::sync::Mutex;

use futures_util::StreamExt as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use super::block::BLOCK_BYTES;
use super::*;
use crate::base::Sha256;

/// What an upstream does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Script {
    /// Takes everything at once.
    Quick,
    /// Takes a block in this time.
    Slow(Duration),
    /// Never takes a block.
    Stuck,
    /// Takes everything and never answers.
    Mute,
    /// Fails after so many blocks.
    Fails(usize),
    /// Fails after it has taken everything.
    FailsLate,
    /// Says after so many blocks that it has the blob already.
    Known(usize),
    /// Keeps every block in memory until the end.
    Hoards,
    /// Takes as many blocks as the buffers of a connection, keeps them and the body when its request has ended, and takes no more: a
    /// connection whose peer reads nothing.
    Clings,
    /// Panics after so many blocks.
    Panics(usize),
}

/// What an upstream got.
#[derive(Default, Clone)]
struct Got {
    content: Arc<Mutex<Vec<u8>>>,
    /// What a connection holds when its request has ended.
    held: Arc<Mutex<(Vec<Bytes>, Option<Pieces>)>>,
    /// Whether the body has ended without an error.
    is_complete: Arc<Mutex<bool>>,
}

impl Got {
    fn content(&self) -> Vec<u8> {
        self.content.lock().unwrap().clone()
    }

    fn is_complete(&self) -> bool {
        *self.is_complete.lock().unwrap()
    }
}

/// Time limit of a request.
const WITHIN: Duration = Duration::from_mins(10);

type Request = std::pin::Pin<Box<dyn Future<Output = Result<(), &'static str>> + Send>>;
type Sink = Box<dyn FnOnce(Pieces, CancellationToken) -> Request + Send>;

fn sink(script: Script, got: Got) -> Sink {
    Box::new(move |body, too_slow| {
        Box::pin(async move {
            tokio::select! {
                end = follow(script, got, body) => end,
                () = too_slow.cancelled() => Err("too slow"),
                () = sleep(WITHIN) => Err("too late"),
            }
        })
    })
}

async fn follow(script: Script, got: Got, mut body: Pieces) -> Result<(), &'static str> {
    let (mut blocks, mut hoard) = (0, Vec::new());
    if script == Script::Clings {
        for _ in 0..CONNECTION_BLOCKS {
            let block = body.next().await.expect("a large body").expect("it is not broken off");
            got.held.lock().unwrap().0.push(block);
        }
        got.held.lock().unwrap().1 = Some(body);
        return pending().await;
    }
    loop {
        match script {
            Script::Stuck => pending().await,
            Script::Slow(time) => sleep(time).await,
            Script::Fails(after) if blocks >= after => return Err("failed"),
            Script::Known(after) if blocks >= after => return Ok(()),
            Script::Panics(after) => assert!(blocks < after, "scripted"),
            _ => {}
        }
        match body.next().await {
            Some(Ok(block)) => {
                got.content.lock().unwrap().extend_from_slice(&block);
                blocks += 1;
                if script == Script::Hoards {
                    hoard.push(block);
                }
            }
            Some(Err(_)) => return Err("broken off"),
            None => break,
        }
    }
    *got.is_complete.lock().unwrap() = true;
    match script {
        Script::Mute => pending().await,
        Script::FailsLate => Err("failed"),
        _ => Ok(()),
    }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| u8::try_from(place * 31 % 251).unwrap()).collect()
}

/// How the client's side of an upload ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    /// The body is complete and right.
    Right,
    /// The hash is wrong, the body too short, or the client away: the upload is dropped.
    Dropped,
}

/// An upload of `body` in parts of `part` bytes with a pause after each. Returns what each upstream got, and the ends; `None` if the
/// quorum was lost before the end.
async fn upload(
    scripts: &[Script],
    needed: usize,
    body: &[u8],
    part: usize,
    pause: Duration,
    ending: Ending,
) -> (Vec<Got>, Option<Settling<(), &'static str>>) {
    let got: Vec<Got> = scripts.iter().map(|_| Got::default()).collect();
    let sinks: Vec<Sink> = scripts.iter().zip(&got).map(|(script, got)| sink(*script, got.clone())).collect();
    let mut beginning = Beginning::new();
    let mut parts = body.chunks(part);
    let mut rest: &[u8] = &[];
    while !beginning.is_full() {
        let Some(part) = parts.next() else { break };
        rest = beginning.fill(part);
    }
    if !beginning.is_full() {
        let settling = (ending == Ending::Right).then(|| beginning.complete(needed, sinks));
        return (got, settling);
    }
    let mut upload = beginning.fan_out(needed, sinks);
    for part in std::iter::once(rest).chain(parts) {
        if upload.write(part).await.is_err() {
            return (got, None);
        }
        assert!(upload.blocks() <= WINDOW_BLOCKS + scripts.len() * CONNECTION_BLOCKS);
        if pause > Duration::ZERO {
            tokio::select! {
                QuorumLost = upload.tend() => return (got, None),
                () = sleep(pause) => {}
            }
        }
    }
    let settling = (ending == Ending::Right).then(|| upload.release());
    (got, settling)
}

fn took(end: &LaneEnd<(), &'static str>) -> bool {
    matches!(end, LaneEnd::Took(()))
}

/// 4 MiB, twice the window, and a bit.
const LARGE: usize = 2 * WINDOW_BLOCKS * BLOCK_BYTES + 12_345;

#[tokio::test(start_paused = true)]
async fn every_size_arrives_whole_at_every_upstream() {
    for bytes in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, LARGE] {
        for part in [1_000, 65_536, 300_000] {
            let body = content(bytes);
            let scripts = [Script::Quick, Script::Slow(Duration::from_millis(1)), Script::Hoards];
            // A hoard of a body larger than the window would wait for itself.
            let scripts = if bytes == LARGE { &scripts[..2] } else { &scripts };
            let (got, settling) = upload(scripts, 1, &body, part, Duration::ZERO, Ending::Right).await;
            let mut settling = settling.unwrap();
            settling.rest().await;
            assert!(settling.take_ends().iter().all(|(_, end)| took(end)), "{bytes} by {part}");
            for got in got {
                assert!(got.is_complete() && got.content() == body, "{bytes} by {part}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bl_px_4_a_stuck_upstream_delays_the_others_by_seconds_and_is_given_up() {
    let (body, began) = (content(LARGE), Instant::now());
    let scripts = [Script::Quick, Script::Stuck, Script::Quick];
    let (got, settling) = upload(&scripts, 2, &body, 65_536, Duration::ZERO, Ending::Right).await;
    let mut settling = settling.unwrap();
    assert!(settling.quorum().await);
    assert!(began.elapsed() <= Duration::from_secs(7), "{:?}", began.elapsed());
    settling.rest().await;
    let ends: Vec<_> = settling.take_ends().into_iter().map(|(_, end)| end).collect();
    assert_eq!(ends, [LaneEnd::Took(()), LaneEnd::Failed("too slow"), LaneEnd::Took(())]);
    assert!(!got[1].is_complete() && got[1].content().is_empty());
    assert!(got[0].content() == body && got[2].content() == body);
}

#[tokio::test(start_paused = true)]
async fn bl_px_4_connections_that_outlive_their_requests_hold_up_nothing() {
    let (body, began) = (content(2 * LARGE), Instant::now());
    let scripts = [Script::Quick, Script::Clings, Script::Clings, Script::Clings, Script::Clings];
    let (got, settling) = upload(&scripts, 1, &body, 65_536, Duration::ZERO, Ending::Right).await;
    assert!(settling.unwrap().quorum().await);
    assert!(began.elapsed() <= Duration::from_secs(7), "{:?}", began.elapsed());
    assert!(got[0].content() == body);
    for got in &got[1..] {
        let mut left = got.held.lock().unwrap().1.take().unwrap();
        assert!(left.next().await.unwrap().is_err(), "it is no complete body");
    }
}

#[tokio::test(start_paused = true)]
async fn bl_px_4_a_slow_upstream_costs_an_upload_a_bounded_part_of_its_time() {
    // The client alone takes 64 s: 1,024 parts of 64 KiB. The slow upstream would take 512 s.
    let (body, began) = (content(64 * 1024 * 1024), Instant::now());
    let scripts = [Script::Quick, Script::Slow(Duration::from_secs(1))];
    let pause = Duration::from_micros(62_500);
    let (got, settling) = upload(&scripts, 1, &body, 65_536, pause, Ending::Right).await;
    assert!(settling.unwrap().quorum().await);
    assert!(began.elapsed() <= Duration::from_secs(64 + 64 / 3 + 8), "{:?}", began.elapsed());
    assert!(got[0].content() == body && !got[1].is_complete());
}

#[tokio::test(start_paused = true)]
async fn upstreams_without_which_there_is_no_quorum_are_waited_for() {
    let (body, began) = (content(LARGE), Instant::now());
    let scripts = [Script::Quick, Script::Slow(Duration::from_secs(10))];
    let (got, settling) = upload(&scripts, 2, &body, 65_536, Duration::ZERO, Ending::Right).await;
    assert!(settling.unwrap().quorum().await);
    assert!(began.elapsed() > Duration::from_mins(5));
    assert!(got.iter().all(|got| got.is_complete() && got.content() == body));
}

#[tokio::test(start_paused = true)]
async fn an_upload_is_answered_at_the_quorum_and_not_when_the_last_upstream_answers() {
    let (body, began) = (content(BLOCK_BYTES * 3), Instant::now());
    let scripts = [Script::Mute, Script::Quick, Script::Slow(Duration::from_secs(3)), Script::Quick];
    let (_, settling) = upload(&scripts, 2, &body, 65_536, Duration::ZERO, Ending::Right).await;
    let mut settling = settling.unwrap();
    assert!(settling.quorum().await);
    assert_eq!((began.elapsed(), settling.running()), (Duration::ZERO, 2));
    assert_eq!(settling.take_ends().iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1, 3]);
    assert!(tokio::time::timeout(Duration::from_mins(1), settling.rest()).await.is_err(), "one is mute");
    let late = settling.take_ends();
    assert!(late.len() == 1 && late[0].0 == 2 && took(&late[0].1), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn bl_px_4_failures_of_some_do_not_break_the_others_and_a_lost_quorum_ends_the_upload_at_once() {
    let body = content(LARGE);
    let failing = [Script::Fails(0), Script::Fails(3), Script::FailsLate, Script::Panics(2), Script::Quick];
    let (got, settling) = upload(&failing, 1, &body, 65_536, Duration::ZERO, Ending::Right).await;
    let mut settling = settling.unwrap();
    assert!(settling.quorum().await);
    settling.rest().await;
    let ends: Vec<_> = settling.take_ends().into_iter().map(|(_, end)| end).collect();
    let failed = LaneEnd::Failed("failed");
    let expected = [failed.clone(), failed.clone(), failed, LaneEnd::Panicked, LaneEnd::Took(())];
    assert_eq!(ends, expected);
    assert!(got[4].content() == body);

    let (got, settling) = upload(&failing, 3, &body, 65_536, Duration::ZERO, Ending::Right).await;
    assert!(settling.is_none(), "before the end of the body");
    assert!(got.iter().all(|got| !got.is_complete()));

    let late = [Script::FailsLate, Script::Quick];
    let (_, settling) = upload(&late, 2, &body, 65_536, Duration::ZERO, Ending::Right).await;
    assert!(!settling.unwrap().quorum().await);
}

#[tokio::test(start_paused = true)]
async fn a_lost_quorum_is_seen_while_the_client_sends_nothing() {
    let (body, began) = (content(LARGE), Instant::now());
    let pause = Duration::from_hours(1);
    // The first part fills more than the block that is held back.
    let part = 3 * BLOCK_BYTES;
    let (_, settling) = upload(&[Script::Fails(1)], 1, &body, part, pause, Ending::Right).await;
    assert!(settling.is_none() && began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_keeps_its_upstreams_busy_and_one_byte_is_still_held_back() {
    let mut beginning = Beginning::new();
    let body = content(BLOCK_BYTES + 100);
    assert!(beginning.fill(&body[..BLOCK_BYTES]).is_empty());
    let got = Got::default();
    let mut upload = beginning.fan_out(1, vec![sink(Script::Quick, got.clone())]);
    for place in BLOCK_BYTES..body.len() {
        upload.write(&body[place..=place]).await.unwrap();
        tokio::select! {
            QuorumLost = upload.tend() => panic!("no quorum"),
            () = sleep(Duration::from_secs(2)) => {}
        }
        // After each pause the upstream has all but the newest byte.
        assert_eq!(got.content().len(), place, "byte {place}");
        assert!(upload.blocks() <= 2);
    }
    let mut settling = upload.release();
    assert!(settling.quorum().await);
    assert!(got.content() == body && got.is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_block_that_an_upstream_keeps_counts_until_it_is_dropped() {
    // Two upstreams take everything; one of them keeps it in memory, as the buffer of a connection does.
    let body = content(LARGE);
    let got = [Got::default(), Got::default()];
    let sinks = vec![sink(Script::Hoards, got[0].clone()), sink(Script::Quick, got[1].clone())];
    let mut beginning = Beginning::new();
    let rest = beginning.fill(&body);
    let mut upload = beginning.fan_out(1, sinks);
    let stuck = tokio::time::timeout(Duration::from_mins(1), upload.write(rest)).await;
    assert!(stuck.is_err(), "there is no room for more than the window");
    assert_eq!(upload.blocks(), WINDOW_BLOCKS);
    assert!(got[0].content().len() <= WINDOW_BLOCKS * BLOCK_BYTES);
    let window = Arc::clone(&upload.window);
    drop(upload);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(window.available_permits(), WINDOW_BLOCKS, "all of it is freed");
}

/// BL-02.9, BL-11.11: whatever the upstreams do, a body that was not found right is complete nowhere.
#[tokio::test(start_paused = true)]
async fn bl_02_9_no_upstream_gets_the_end_of_a_body_that_was_not_released() {
    let scripts = [
        Script::Quick,
        Script::Slow(Duration::from_millis(3)),
        Script::Mute,
        Script::FailsLate,
        Script::Hoards,
    ];
    for bytes in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES, 5 * BLOCK_BYTES + 7] {
        let body = content(bytes);
        let (got, settling) =
            upload(&scripts, 1, &body, 65_536, Duration::from_millis(10), Ending::Dropped).await;
        assert!(settling.is_none());
        sleep(Duration::from_hours(1)).await;
        for got in got {
            assert!(!got.is_complete(), "{bytes}");
            assert!(bytes == 0 || got.content().len() < bytes, "the last byte was held back: {bytes}");
        }
    }
}

/// Any number of upstreams of any kind, parts and pauses of any length, and an end at any moment.
#[tokio::test(start_paused = true)]
async fn whatever_happens_a_dropped_body_is_complete_nowhere_and_a_released_one_is_whole() {
    let mut random = ChaCha8Rng::seed_from_u64(16);
    let longest = content(20 * BLOCK_BYTES);
    for round in 0..300 {
        let scripts: Vec<Script> = (0..random.random_range(1..6))
            .map(|_| match random.random_range(0..8) {
                0 | 1 => Script::Quick,
                2 => Script::Slow(Duration::from_millis(random.random_range(0..400))),
                3 => Script::Stuck,
                4 => Script::Mute,
                5 => Script::Fails(random.random_range(0..20)),
                6 => Script::FailsLate,
                _ => Script::Known(random.random_range(0..20)),
            })
            .collect();
        let needed = random.random_range(0..=scripts.len());
        let body = &longest[..random.random_range(0..longest.len())];
        let part = random.random_range(1_000..300_000);
        let pause = Duration::from_millis(random.random_range(0..40));
        let ending = if random.random() { Ending::Right } else { Ending::Dropped };
        let aborted_after = Duration::from_millis(random.random_range(0..4_000));
        let what = format!("round {round}: {scripts:?}, {needed} needed, {} bytes, {ending:?}", body.len());

        let work = async {
            let (got, settling) = upload(&scripts, needed, body, part, pause, ending).await;
            let hash = Sha256::of(body);
            let Some(mut settling) = settling else {
                sleep(2 * WITHIN).await;
                let is_short = |got: &Got| got.content().len() < body.len() || body.is_empty();
                assert!(got.iter().all(|got| !got.is_complete() && is_short(got)), "{what}");
                return;
            };
            settling.rest().await;
            for (place, end) in settling.take_ends() {
                if matches!(scripts[place], Script::Known(_)) {
                    continue;
                }
                let is_whole = got[place].is_complete() && Sha256::of(&got[place].content()) == hash;
                assert!(!took(&end) || is_whole, "{what}: {place}");
            }
        };
        // Some clients leave at any moment: their uploads are dropped wherever they are.
        if random.random_range(0..4) == 0 {
            let _ = tokio::time::timeout(aborted_after, work).await;
        } else {
            work.await;
        }
    }
}
