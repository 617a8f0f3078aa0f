//! Runs against each other, in virtual time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// ClearML's list as the server keeps it: a registration starts an entry anew, a report keeps one alive or
/// makes one of 600 s, and each lives that long after its last report.
#[derive(Default)]
struct Server {
    entries: Mutex<Vec<(Entry, Instant, Duration)>>,
    born: Mutex<Option<Instant>>,
    /// Register times are rounded down to this many milliseconds, 0 for not at all.
    coarse: AtomicU64,
}

impl Server {
    fn now(&self) -> Timestamp {
        let born = *self.born.lock().unwrap().get_or_insert_with(Instant::now);
        Timestamp::from_second(1_795_459_885).unwrap() + born.elapsed()
    }

    fn ids(&self) -> Vec<String> {
        let mut entries = self.entries.lock().unwrap();
        entries.retain(|(_, active, life)| active.elapsed() < *life);
        entries.iter().map(|(entry, ..)| entry.id.clone()).collect()
    }

    fn remove(&self, worker: &str) {
        self.entries.lock().unwrap().retain(|(entry, ..)| entry.id != worker);
    }
}

/// A run's way to the server, which can be cut.
#[derive(Clone, Default)]
struct Path {
    server: Arc<Server>,
    cut: Arc<AtomicBool>,
}

impl Path {
    fn other(&self) -> Self {
        Self { server: self.server.clone(), cut: Arc::default() }
    }

    async fn pass(&self) -> Result<(), clearml::Error> {
        sleep(Duration::from_millis(10)).await;
        if self.cut.load(Ordering::Relaxed) {
            return Err(clearml::Error::Unavailable { endpoint: "workers", reason: "cut".to_owned() });
        }
        Ok(())
    }

    fn enter(&self, worker: &str, life: Duration) {
        self.server.remove(worker);
        let (id, active) = (worker.to_owned(), self.server.now());
        let coarse = i64::try_from(self.server.coarse.load(Ordering::Relaxed).max(1)).unwrap();
        let rounded = active.as_millisecond() / coarse * coarse;
        let registered = Some(Timestamp::from_millisecond(rounded).unwrap());
        let entry = Entry { id, registered, active: Some(active) };
        self.server.entries.lock().unwrap().push((entry, Instant::now(), life));
    }
}

impl Registry for Path {
    async fn register(&self, worker: &str) -> Result<(), clearml::Error> {
        self.pass().await?;
        self.enter(worker, LIFETIME);
        Ok(())
    }

    async fn report(&self, worker: &str) -> Result<(), clearml::Error> {
        self.pass().await?;
        if !self.server.ids().iter().any(|id| id == worker) {
            self.enter(worker, Duration::from_secs(600));
        }
        let now = self.server.now();
        for (entry, active, _) in self.server.entries.lock().unwrap().iter_mut() {
            if entry.id == worker {
                (entry.active, *active) = (Some(now), Instant::now());
            }
        }
        Ok(())
    }

    async fn unregister(&self, worker: &str) -> Result<(), clearml::Error> {
        self.pass().await?;
        self.server.remove(worker);
        Ok(())
    }

    async fn list(&self, beginning: &str) -> Result<Vec<Entry>, clearml::Error> {
        self.pass().await?;
        self.server.ids();
        let entries = self.server.entries.lock().unwrap();
        Ok(entries.iter().map(|(it, ..)| it.clone()).filter(|it| it.id.starts_with(beginning)).collect())
    }
}

fn claim(run: &str) -> Claim {
    Claim { prefix: "aws".to_owned(), run: run.to_owned(), predecessors: Vec::new() }
}

fn winner(outcome: Result<Lease<Path>, LeaseError>) -> String {
    match outcome {
        Err(LeaseError::Held { winner }) => winner,
        other => panic!("{other:?}"),
    }
}

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Path")
    }
}

async fn until(what: &str, seconds: u64, condition: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(seconds), "not within {seconds} s: {what}");
        sleep(Duration::from_millis(100)).await;
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_lone_run_has_it_after_five_seconds_and_keeps_it() {
    let path = Path::default();
    path.enter("other-autoscaler:x", LIFETIME);
    let began = Instant::now();
    let lease = Lease::acquire(path.clone(), &claim("a")).await.unwrap();
    assert!((SETTLE..Duration::from_secs(8)).contains(&began.elapsed()), "{:?}", began.elapsed());
    let held = lease.held();
    for _ in 0..600 {
        assert!(held.is_held());
        sleep(Duration::from_secs(1)).await;
    }
    lease.release().await;
    assert_eq!(path.server.ids(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn of_two_that_start_together_the_older_wins_and_the_other_names_it() {
    let path = Path::default();
    let late = async {
        sleep(Duration::from_millis(3)).await;
        Lease::acquire(path.other(), &claim("a")).await
    };
    let early = claim("b");
    let (first, second) = tokio::join!(Lease::acquire(path.clone(), &early), late);
    assert!(first.unwrap().held().is_held());
    assert_eq!(winner(second), "aws-autoscaler:b");
    assert_eq!(path.server.ids(), ["aws-autoscaler:b"]);
}

#[tokio::test(start_paused = true)]
async fn a_tie_goes_to_the_lower_id() {
    let path = Path::default();
    path.server.coarse.store(60_000, Ordering::Relaxed);
    let claims = [claim("b"), claim("a")];
    let (first, second) =
        tokio::join!(Lease::acquire(path.clone(), &claims[0]), Lease::acquire(path.other(), &claims[1]));
    assert_eq!(winner(first), "aws-autoscaler:a");
    assert!(second.unwrap().held().is_held());
}

#[tokio::test(start_paused = true)]
async fn of_many_that_start_within_seconds_exactly_one_wins() {
    for gap in [0, 7, 500, 4_000, 6_000, 20_000] {
        let path = Path::default();
        let runs: Vec<_> = (0..5)
            .map(|n| {
                let path = path.other();
                tokio::spawn(async move {
                    sleep(Duration::from_millis(gap * n)).await;
                    Lease::acquire(path, &claim(&n.to_string())).await
                })
            })
            .collect();
        let mut leases = Vec::new();
        for run in runs {
            match run.await.unwrap() {
                Ok(lease) => leases.push(lease),
                Err(error) => assert!(matches!(error, LeaseError::Held { .. }), "{error}"),
            }
        }
        assert_eq!(leases.len(), 1, "gap {gap}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_gives_way_to_a_live_holder_within_a_renewal() {
    let path = Path::default();
    let lease = Lease::acquire(path.clone(), &claim("z")).await.unwrap();
    sleep(Duration::from_secs(100)).await;
    let began = Instant::now();
    assert_eq!(winner(Lease::acquire(path.other(), &claim("a")).await), "aws-autoscaler:z");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(lease.held().is_held());
    assert_eq!(path.server.ids(), ["aws-autoscaler:z"]);
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_the_next_run_waits_until_the_dead_one_is_surely_dead() {
    let path = Path::default();
    let crashed = Lease::acquire(path.clone(), &claim("a")).await.unwrap();
    sleep(Duration::from_secs(100)).await;
    drop(crashed);
    sleep(Duration::from_secs(5)).await;
    let began = Instant::now();
    let lease = Lease::acquire(path.other(), &claim("b")).await.unwrap();
    assert!(began.elapsed() < SILENCE + SETTLE, "{:?}", began.elapsed());
    let held = lease.held();
    for _ in 0..60 {
        assert!(held.is_held(), "the dead run's entry must not count once it was found dead");
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_known_predecessor_is_not_waited_for() {
    let path = Path::default();
    drop(Lease::acquire(path.clone(), &claim("a")).await.unwrap());
    let began = Instant::now();
    let successor = Claim { predecessors: vec!["a".to_owned()], ..claim("b") };
    let lease = Lease::acquire(path.other(), &successor).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(path.server.ids(), [lease.worker()]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cut_off_stops_before_another_can_start_and_comes_back_when_that_one_ends() {
    let path = Path::default();
    let first = Lease::acquire(path.clone(), &claim("a")).await.unwrap();
    let held = first.held();
    sleep(Duration::from_secs(33)).await;
    path.cut.store(true, Ordering::Relaxed);
    let second = tokio::spawn({
        let other = path.other();
        async move { Lease::acquire(other, &claim("b")).await }
    });
    until("the first loses it", 26, || !held.is_held()).await;
    assert!(!second.is_finished());
    let second = second.await.unwrap().unwrap();
    assert!(!held.is_held());
    path.cut.store(false, Ordering::Relaxed);
    for _ in 0..120 {
        assert!(second.held().is_held() && !held.is_held());
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(held.rival().as_deref(), Some("aws-autoscaler:b"));
    second.release().await;
    until("the first regains it", 10, || held.is_held()).await;
}

#[tokio::test(start_paused = true)]
async fn two_runs_never_hold_it_at_once_however_their_ways_are_cut() {
    for seed in 0..10_u64 {
        let path = Path::default();
        let paths = [path.other(), path];
        let first = Lease::acquire(paths[0].clone(), &claim("a")).await.unwrap();
        paths[0].cut.store(true, Ordering::Relaxed);
        let second = Lease::acquire(paths[1].clone(), &claim("b")).await.unwrap();
        let held = [first.held(), second.held()];
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for _ in 0..60 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            paths[(state & 1) as usize].cut.store(state & 6 != 0, Ordering::Relaxed);
            for _ in 0..(state >> 8) % 400 {
                sleep(Duration::from_millis(100)).await;
                assert!(!(held[0].is_held() && held[1].is_held()), "seed {seed}");
            }
        }
        paths.iter().for_each(|path| path.cut.store(false, Ordering::Relaxed));
        until("one of them has it again", 120, || held[0].is_held() || held[1].is_held()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_somebody_removed_is_registered_anew() {
    let path = Path::default();
    let lease = Lease::acquire(path.clone(), &claim("a")).await.unwrap();
    path.server.remove(lease.worker());
    let held = lease.held();
    until("the loss is seen", 20, || !held.is_held()).await;
    until("it is regained", 10, || held.is_held()).await;
    let entries = path.server.entries.lock().unwrap();
    assert_eq!(entries[0].2, LIFETIME);
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_it_fails_and_says_so() {
    let path = Path::default();
    path.cut.store(true, Ordering::Relaxed);
    let error = Lease::acquire(path, &claim("a")).await.unwrap_err();
    assert!(matches!(error, LeaseError::ClearMl(clearml::Error::Unavailable { .. })), "{error}");
}
