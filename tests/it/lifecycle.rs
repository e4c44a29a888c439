//! Shutdown in two stages, failing tasks, and loops under paused time.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, stream};
use quipu::base::SystemClock;
use quipu::lifecycle::{
    CycleOutcome, Ending, HealthRegistry, Lifecycle, Schedule, Service, ServiceState, Wake, until_signals,
};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const GRACE: Duration = Duration::from_secs(30);

fn signals() -> (UnboundedSender<&'static str>, impl Stream<Item = &'static str>) {
    let (send, receive) = mpsc::unbounded_channel();
    (send, stream::unfold(receive, |mut receive| async move { Some((receive.recv().await?, receive)) }))
}

/// Runs to the end. A run that never ends fails instead of hanging, because paused time advances by itself.
async fn run(lifecycle: &Lifecycle, signals: impl Stream<Item = &'static str>) -> Ending {
    tokio::time::timeout(GRACE * 100, lifecycle.run_until_stopped(signals)).await.expect("an end")
}

fn health() -> HealthRegistry {
    HealthRegistry::new(Arc::new(SystemClock))
}

#[tokio::test(start_paused = true)]
async fn the_first_signal_drains_and_waits_for_work_under_way() {
    let (send, signals) = signals();
    let lifecycle = Lifecycle::new(GRACE);
    let (done, mut is_done) = mpsc::unbounded_channel();
    let drain = lifecycle.drain_token();
    lifecycle.spawn("worker", async move {
        drain.cancelled().await;
        tokio::time::sleep(GRACE / 2).await;
        done.send("finished").map_err(io::Error::other)
    });
    send.send("SIGTERM").unwrap();
    let ending = run(&lifecycle, signals).await;
    assert!(ending.is_clean(), "{ending:?}");
    assert_eq!(is_done.recv().await, Some("finished"));
}

#[tokio::test(start_paused = true)]
async fn the_second_signal_aborts_at_once() {
    let (send, signals) = signals();
    let lifecycle = Lifecycle::new(GRACE);
    lifecycle.spawn("stubborn", pending::<io::Result<()>>());
    send.send("SIGINT").unwrap();
    send.send("SIGINT").unwrap();
    let begun = Instant::now();
    let ending = run(&lifecycle, signals).await;
    assert!(ending.aborted && ending.failure.is_none());
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_phase_is_stopped_by_the_first_signal_and_dropped_by_the_second() {
    let (send, signals) = signals();
    let mut signals = std::pin::pin!(signals);
    let stop = CancellationToken::new();
    let work = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
        "cleaned up"
    };
    send.send("SIGINT").unwrap();
    assert_eq!(until_signals(&mut signals, &stop, "a test runs", work).await, Some("cleaned up"));
    send.send("SIGINT").unwrap();
    assert_eq!(until_signals(&mut signals, &stop, "a test runs", pending::<()>()).await, None);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_grace_time_aborts() {
    let (send, signals) = signals();
    let lifecycle = Lifecycle::new(GRACE);
    lifecycle.spawn("stubborn", pending::<io::Result<()>>());
    send.send("SIGTERM").unwrap();
    let begun = Instant::now();
    let ending = run(&lifecycle, signals).await;
    assert!(ending.aborted && !ending.is_clean());
    assert!(begun.elapsed() >= GRACE && begun.elapsed() < GRACE + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_failing_task_drains_the_others_and_the_first_error_is_kept() {
    let (_send, signals) = signals();
    let lifecycle = Lifecycle::new(GRACE);
    let drain = lifecycle.drain_token();
    lifecycle.spawn("follower", async move {
        drain.cancelled().await;
        Err(io::Error::other("a consequence"))
    });
    lifecycle.spawn("culprit", async { Err(io::Error::other("the cause")) });
    let ending = run(&lifecycle, signals).await;
    assert!(!ending.is_clean() && !ending.aborted);
    let failure = ending.failure.expect("a failure");
    assert_eq!(failure.task, "culprit");
    assert_eq!(std::error::Error::source(&failure).unwrap().to_string(), "the cause");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_of_its_task() {
    let (_send, signals) = signals();
    let lifecycle = Lifecycle::new(GRACE);
    lifecycle.spawn("careless", async {
        assert_eq!(1, 2, "sums");
        io::Result::Ok(())
    });
    let failure = run(&lifecycle, signals).await.failure.expect("a failure");
    assert!(std::error::Error::source(&failure).unwrap().to_string().starts_with("panicked: "));
}

#[tokio::test(start_paused = true)]
async fn a_run_of_tasks_that_end_by_themselves_needs_no_signal() {
    let (_send, signals) = signals();
    let lifecycle = Lifecycle::new(GRACE);
    lifecycle.spawn("short", async { io::Result::Ok(()) });
    assert!(run(&lifecycle, signals).await.is_clean());
}

/// Returns the results of a list, then stays idle; reports when each cycle began.
struct Scripted {
    answers: Mutex<VecDeque<io::Result<CycleOutcome>>>,
    began: UnboundedSender<Instant>,
}

impl Service for Scripted {
    type Error = io::Error;

    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn cycle(&self, _: &CancellationToken) -> io::Result<CycleOutcome> {
        self.began.send(Instant::now()).unwrap();
        self.answers.lock().unwrap().pop_front().unwrap_or(Ok(CycleOutcome::Idle))
    }
}

fn scripted(answers: Vec<io::Result<CycleOutcome>>) -> (Scripted, UnboundedReceiver<Instant>) {
    let (began, times) = mpsc::unbounded_channel();
    (Scripted { answers: Mutex::new(answers.into()), began }, times)
}

fn pace(interval_s: u64) -> Schedule {
    Schedule { jitter: Duration::ZERO, ..Schedule::every(Duration::from_secs(interval_s)) }
}

fn broken() -> io::Result<CycleOutcome> {
    Err(io::Error::other("no database"))
}

#[tokio::test(start_paused = true)]
async fn a_loop_keeps_its_interval_and_stops_at_the_drain() {
    let (send, signals) = signals();
    let (service, mut times) = scripted(vec![Ok(CycleOutcome::More)]);
    let (lifecycle, health) = (Lifecycle::new(GRACE), health());
    lifecycle.run_service(service, pace(60), health.clone());
    assert_eq!(health.snapshot()["scripted"].state, ServiceState::Starting);
    let [first, second, third] =
        [times.recv().await, times.recv().await, times.recv().await].map(Option::unwrap);
    assert!(second - first < Duration::from_secs(1), "more: at once");
    assert!((60..62).contains(&(third - second).as_secs()), "idle: after the interval");
    assert_eq!(health.snapshot()["scripted"].state, ServiceState::Ok);
    send.send("SIGTERM").unwrap();
    assert!(run(&lifecycle, signals).await.is_clean());
    assert_eq!(health.snapshot()["scripted"].state, ServiceState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_hint_wakes_a_loop_before_its_interval_even_if_it_came_during_the_cycle() {
    let wake = Wake::new();
    wake.wake();
    let (service, mut times) = scripted(vec![]);
    let lifecycle = Lifecycle::new(GRACE);
    lifecycle.run_service(service, pace(3600).woken_by(wake.clone()), health());
    let first = times.recv().await.unwrap();
    let second = times.recv().await.unwrap();
    wake.wake();
    let third = times.recv().await.unwrap();
    assert!(second - first < Duration::from_secs(1) && third - second < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_ever_longer_are_visible_and_a_success_resets_them() {
    let (service, mut times) = scripted(vec![broken(), broken(), broken(), Ok(CycleOutcome::Idle), broken()]);
    let (lifecycle, health) = (Lifecycle::new(GRACE), health());
    lifecycle.run_service(service, pace(600), health.clone());
    let mut at = Vec::new();
    for _ in 0..3 {
        at.push(times.recv().await.unwrap());
    }
    assert!(!health.liveness().is_healthy);
    let state = health.snapshot()["scripted"].state.clone();
    assert!(matches!(state, ServiceState::Failing { reason, .. } if reason == "no database"));
    for _ in 0..3 {
        at.push(times.recv().await.unwrap());
    }
    let pauses: Vec<u64> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    let bounds = [1..3, 2..5, 4..9, 600..602, 1..3];
    assert!(bounds.iter().zip(&pauses).all(|(bound, pause)| bound.contains(pause)), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_once_service_is_tried_until_it_succeeds_and_then_is_done() {
    let (_send, signals) = signals();
    let (service, mut times) = scripted(vec![broken(), Ok(CycleOutcome::Done)]);
    let (lifecycle, health) = (Lifecycle::new(GRACE), health());
    lifecycle.run_service(service, pace(1), health.clone());
    assert!(run(&lifecycle, signals).await.is_clean());
    let scripted = &health.snapshot()["scripted"];
    assert_eq!((&scripted.state, scripted.cycles, scripted.failures), (&ServiceState::Done, 2, 1));
    assert!(times.recv().await.is_some() && times.recv().await.is_some() && times.recv().await.is_none());
}

/// Panics in its first cycle.
struct Careless(UnboundedSender<Instant>, Mutex<u32>);

impl Service for Careless {
    type Error = io::Error;

    fn name(&self) -> &'static str {
        "careless"
    }

    async fn cycle(&self, _: &CancellationToken) -> io::Result<CycleOutcome> {
        self.0.send(Instant::now()).unwrap();
        let mut cycles = self.1.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *cycles += 1;
        assert!(*cycles > 1, "the first cycle");
        Ok(CycleOutcome::Done)
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_cycle_fails_that_cycle_is_counted_and_the_service_backs_off_and_continues() {
    let (_send, signals) = signals();
    let (began, mut times) = mpsc::unbounded_channel();
    let (lifecycle, health) = (Lifecycle::new(GRACE), health());
    lifecycle.run_service(Careless(began, Mutex::default()), pace(1), health.clone());
    let ending = run(&lifecycle, signals).await;
    assert!(ending.is_clean(), "{ending:?}");
    let (first, second) = (times.recv().await.unwrap(), times.recv().await.unwrap());
    assert!(second - first >= Duration::from_secs(1), "it backs off");
    let careless = &health.snapshot()["careless"];
    assert_eq!((&careless.state, careless.cycles, careless.failures), (&ServiceState::Done, 2, 1));
    assert_eq!(quipu::lifecycle::panics_by_unit()["careless"], 1);
}

/// Fails once, then works until the drain.
struct Endless(Mutex<Vec<io::Result<CycleOutcome>>>);

impl Service for Endless {
    type Error = io::Error;

    fn name(&self) -> &'static str {
        "endless"
    }

    async fn cycle(&self, drain: &CancellationToken) -> io::Result<CycleOutcome> {
        let answer = self.0.lock().unwrap().pop();
        if let Some(answer) = answer {
            return answer;
        }
        drain.cancelled().await;
        Ok(CycleOutcome::Idle)
    }
}

#[tokio::test(start_paused = true)]
async fn a_cycle_that_lasts_for_hours_counts_as_started_and_healthy_while_it_works() {
    let (lifecycle, health) = (Lifecycle::new(GRACE), health());
    lifecycle.run_service(Endless(Mutex::default()), pace(60).with_long_cycles(), health.clone());
    assert_eq!(health.still_starting(), ["endless"]);
    tokio::time::timeout(Duration::from_secs(1), health.started()).await.expect("it works");
    assert!(health.liveness().is_ready);

    // A service with short cycles must complete one first.
    let health = self::health();
    lifecycle.run_service(Endless(Mutex::default()), pace(60), health.clone());
    assert!(tokio::time::timeout(GRACE * 100, health.started()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_long_cycle_ends_a_failure_after_a_while_but_not_when_it_begins() {
    let (lifecycle, health) = (Lifecycle::new(GRACE), health());
    let failing = Endless(Mutex::new(vec![broken()]));
    lifecycle.run_service(failing, pace(60).with_long_cycles(), health.clone());
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(!health.liveness().is_healthy, "again at work, but not for long");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(health.liveness().is_ready);
}
