//! Looks at what the loop publishes, and says when it is time for points and plots.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::Published;
use planner::Time;
use tokio::sync::watch;

use super::curves::Curves;
use super::observe::{News, Observer};
use super::outbox::{Outbox, Plot};
use super::plots;
use super::spend::{Hourly, Meter};
use super::story::{BootLogs, Storyteller};
use crate::service::ledger::Book;

/// Between two looks at least: passes may come by the hundred.
const LOOK_GAP: Duration = Duration::from_millis(500);
/// Without news, looked at again after this.
const TICK: Duration = Duration::from_secs(10);
/// Points are written this often, and this long after the last ones if the fleet has changed.
const POINTS_EVERY: Duration = Duration::from_secs(30);
const POINTS_GAP: Duration = Duration::from_secs(5);
/// The same of plots, which are larger.
const PLOTS_EVERY: Duration = Duration::from_secs(60);
const PLOTS_GAP: Duration = Duration::from_secs(15);

/// Follows the loop.
pub(super) struct Watcher {
    published: watch::Receiver<Arc<Published>>,
    outbox: Outbox,
    story: Storyteller,
    scene: Scene,
}

impl Watcher {
    pub(super) fn new(
        published: watch::Receiver<Arc<Published>>,
        outbox: Outbox,
        boot_logs: BootLogs,
        prices: Arc<dyn Hourly>,
        book: Book,
        first: i64,
    ) -> Self {
        let began = published.borrow().snapshot.started_at;
        let scene = Scene::new(prices, book, first, began);
        Self { published, outbox, story: Storyteller::new(boot_logs), scene }
    }

    /// Until it is told to end.
    pub(super) async fn run(mut self, mut ending: watch::Receiver<bool>) {
        loop {
            let published = self.published.borrow_and_update().clone();
            let is_last = *ending.borrow_and_update();
            self.story.tell_budget(&published.policy);
            let Shown { news, points, plots } = self.scene.look(&published, is_last);
            self.story.tell(news);
            self.outbox.points(points);
            plots.into_iter().for_each(|plot| self.outbox.plot(plot));
            if is_last {
                return;
            }
            let published = &mut self.published;
            let news = async {
                tokio::time::sleep(LOOK_GAP).await;
                if published.changed().await.is_err() {
                    // The loop has ended, and this will be told to end as well.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = news => {}
                () = tokio::time::sleep(TICK) => {}
                told = ending.changed() => if told.is_err() { return },
            }
        }
    }
}

/// What a look shows.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) news: Vec<News>,
    pub(super) points: Vec<super::outbox::Point>,
    pub(super) plots: Vec<Plot>,
}

/// Everything that is remembered between two looks. Pure.
pub(super) struct Scene {
    observer: Observer,
    meter: Meter,
    curves: Curves,
    prices: Arc<dyn Hourly>,
    points_at: Option<Time>,
    plots_at: Option<Time>,
    plots: BTreeMap<&'static str, String>,
    points_are_due: bool,
    plots_are_due: bool,
}

impl Scene {
    pub(super) fn new(prices: Arc<dyn Hourly>, book: Book, first: i64, began: Time) -> Self {
        Self {
            observer: Observer::default(),
            meter: Meter::new(book),
            curves: Curves::new(first, began),
            prices,
            points_at: None,
            plots_at: None,
            plots: BTreeMap::new(),
            points_are_due: false,
            plots_are_due: false,
        }
    }

    /// Takes a pass in. Points and plots come when it is time for them, or if it is the last look.
    pub(super) fn look(&mut self, published: &Published, is_last: bool) -> Shown {
        let now = published.snapshot.now;
        let mut shown = Shown { news: self.observer.observe(published), ..Shown::default() };
        self.meter.observe(published, &*self.prices);
        if std::mem::take(&mut self.observer.has_changed) {
            self.points_are_due = true;
            self.plots_are_due = true;
        }
        let is_time = |last: Option<Time>, changed: bool, gap: Duration, every: Duration| {
            let Some(last) = last else { return true };
            now.since(last) >= if changed { gap } else { every }
        };
        if is_last || is_time(self.points_at, self.points_are_due, POINTS_GAP, POINTS_EVERY) {
            self.points_at = Some(now);
            self.points_are_due = false;
            shown.points = self.curves.points(published, &mut self.observer, &self.meter, is_last);
        }
        if is_last || is_time(self.plots_at, self.plots_are_due, PLOTS_GAP, PLOTS_EVERY) {
            self.plots_at = Some(now);
            self.plots_are_due = false;
            shown.plots = plots::all(published, &self.observer, &*self.prices);
            shown.plots.retain(|plot| {
                self.plots.insert(plot.metric, plot.json.clone()).as_ref() != Some(&plot.json)
            });
        }
        shown
    }
}
