//! Image names of the configuration as image ids of the region.
//!
//! A launch is written down with the very id that it asks for, so that asking again asks for the same; and preparing
//! it may wait for nobody. So names are looked up beside the loop, and a launch takes what is known by then.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// An id is looked up again after this; as much again is added by chance.
const REFRESH: Duration = Duration::from_secs(600);
/// After a look-up that failed.
const RETRY: Duration = Duration::from_secs(20);
/// An id that could not be looked up again is believed for so long.
const BELIEVED: Duration = Duration::from_secs(3600);
/// A name that no launch has asked for is forgotten.
const WANTED: Duration = Duration::from_secs(24 * 3600);
/// One look-up.
const LIMIT: Duration = Duration::from_secs(30);

/// Where names are looked up.
pub trait Finder: Send + Sync + 'static {
    /// The id of the newest image of this name that can be launched; `None` if there is none.
    fn newest(&self, name: &str) -> impl Future<Output = Result<Option<String>, ec2::Error>> + Send;
}

impl Finder for ec2::Client {
    async fn newest(&self, name: &str) -> Result<Option<String>, ec2::Error> {
        Ok(self.newest_image(name).await?.map(|image| image.id))
    }
}

/// Names and what they stand for, kept fresh for as long as this lives.
pub struct Images {
    book: Arc<Mutex<Book>>,
    asked: watch::Sender<u64>,
    settled: watch::Receiver<bool>,
    keeper: JoinHandle<()>,
}

type Book = BTreeMap<String, Page>;

/// One name.
struct Page {
    /// The id, and when EC2 said so.
    id: Option<(String, Instant)>,
    /// What the last look-up failed with.
    trouble: Option<String>,
    next: Instant,
    wanted_at: Instant,
}

impl Page {
    fn new(now: Instant) -> Self {
        Self { id: None, trouble: None, next: now, wanted_at: now }
    }
}

impl Images {
    /// Begins to look these names up.
    pub fn follow(finder: impl Finder, names: impl IntoIterator<Item = String>) -> Self {
        let now = Instant::now();
        let book: Book = names.into_iter().map(|name| (name, Page::new(now))).collect();
        let book = Arc::new(Mutex::new(book));
        let (asked, new) = watch::channel(0);
        let (settle, settled) = watch::channel(false);
        let keeper = tokio::spawn(keep(finder, Arc::clone(&book), new, settle));
        Self { book, asked, settled, keeper }
    }

    /// Resolves when each name has been looked up once, or after a while.
    pub async fn settle(&self, patience: Duration) {
        let mut settled = self.settled.clone();
        // Whatever is not known then is looked up on.
        let _ = timeout(patience, settled.wait_for(|settled| *settled)).await;
    }

    /// What a name stands for now. Asks nobody.
    ///
    /// # Errors
    /// Why that is not known, naming it.
    pub fn id(&self, name: &str) -> Result<String, String> {
        let now = Instant::now();
        let mut book = lock(&self.book);
        let page = book.entry(name.to_owned()).or_insert_with(|| {
            self.asked.send_modify(|count| *count += 1);
            Page::new(now)
        });
        page.wanted_at = now;
        match (&page.id, &page.trouble) {
            (Some((id, _)), None) => Ok(id.clone()),
            (Some((id, said_at)), Some(_)) if now.duration_since(*said_at) < BELIEVED => Ok(id.clone()),
            (Some(_) | None, Some(trouble)) => Err(trouble.clone()),
            (None, None) => Err(format!("image '{name}' is being looked up")),
        }
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn keep(
    finder: impl Finder,
    book: Arc<Mutex<Book>>,
    mut asked: watch::Receiver<u64>,
    settle: watch::Sender<bool>,
) {
    loop {
        let now = Instant::now();
        let due: Vec<String> = {
            let mut book = lock(&book);
            book.retain(|_, page| now.duration_since(page.wanted_at) < WANTED);
            book.iter().filter(|(_, page)| page.next <= now).map(|(name, _)| name.clone()).collect()
        };
        for name in due {
            let answer = timeout(LIMIT, finder.newest(&name)).await;
            write_down(&book, &name, answer);
        }
        settle.send_replace(true);
        let next = lock(&book).values().map(|page| page.next).min();
        tokio::select! {
            () = sleep_until(next.unwrap_or_else(|| Instant::now() + WANTED)) => {}
            changed = asked.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

fn write_down(
    book: &Mutex<Book>,
    name: &str,
    answer: Result<Result<Option<String>, ec2::Error>, tokio::time::error::Elapsed>,
) {
    let now = Instant::now();
    let mut book = lock(book);
    let Some(page) = book.get_mut(name) else { return };
    let trouble = match answer {
        Ok(Ok(Some(id))) => {
            if page.id.as_ref().is_none_or(|(known, _)| *known != id) {
                tracing::info!(image = name, %id, "the image's id in this region");
            }
            page.id = Some((id, now));
            None
        }
        Ok(Ok(None)) => {
            // EC2's own word: what was believed is not there any more.
            page.id = None;
            Some(format!(
                "no image that can be launched here is called '{name}', of amazon, this account or the marketplace"
            ))
        }
        Ok(Err(error)) => Some(format!("image '{name}' could not be looked up: {error}")),
        Err(_) => {
            Some(format!("image '{name}' could not be looked up: no answer within {} s", LIMIT.as_secs()))
        }
    };
    if trouble != page.trouble
        && let Some(trouble) = &trouble
    {
        tracing::warn!("{trouble}");
    }
    let pause = if trouble.is_some() { RETRY } else { REFRESH };
    page.trouble = trouble;
    page.next = now + pause.mul_f64(1.0 + rand::random::<f64>());
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = Result<Option<String>, ec2::Error>;

    /// Answers what the test wants by then.
    #[derive(Clone)]
    struct Fake(Arc<Mutex<(Answer, usize)>>);

    impl Fake {
        fn new(answer: Answer) -> Self {
            Self(Arc::new(Mutex::new((answer, 0))))
        }

        fn say(&self, answer: Answer) {
            self.0.lock().unwrap().0 = answer;
        }

        fn looked(&self) -> usize {
            self.0.lock().unwrap().1
        }
    }

    impl Finder for Fake {
        async fn newest(&self, _name: &str) -> Answer {
            let mut fake = self.0.lock().unwrap();
            fake.1 += 1;
            fake.0.clone()
        }
    }

    fn found(id: &str) -> Answer {
        Ok(Some(id.to_owned()))
    }

    fn throttled() -> Answer {
        Err(ec2::Error {
            meaning: ec2::Meaning::Throttled,
            operation: "describe images",
            code: Some("RequestLimitExceeded".to_owned()),
            message: "too many".to_owned(),
        })
    }

    fn deep() -> [String; 1] {
        ["deep".to_owned()]
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_ahead_and_again() {
        let fake = Fake::new(found("ami-1"));
        let images = Images::follow(fake.clone(), deep());
        images.settle(LIMIT).await;
        assert_eq!(images.id("deep"), Ok("ami-1".to_owned()));
        fake.say(found("ami-2"));
        assert_eq!(images.id("deep"), Ok("ami-1".to_owned()));
        tokio::time::sleep(2 * REFRESH).await;
        assert_eq!(images.id("deep"), Ok("ami-2".to_owned()));
        assert!(fake.looked() <= 3, "{} look-ups", fake.looked());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_look_up_names_the_image_and_is_tried_again() {
        let fake = Fake::new(throttled());
        let images = Images::follow(fake.clone(), deep());
        images.settle(LIMIT).await;
        let trouble = images.id("deep").unwrap_err();
        assert!(trouble.contains("'deep'") && trouble.contains("RequestLimitExceeded"), "{trouble}");
        fake.say(found("ami-1"));
        tokio::time::sleep(2 * RETRY).await;
        assert_eq!(images.id("deep"), Ok("ami-1".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_id_outlives_an_outage_for_an_hour_but_not_ec2s_word() {
        let fake = Fake::new(found("ami-1"));
        let images = Images::follow(fake.clone(), deep());
        images.settle(LIMIT).await;
        fake.say(throttled());
        tokio::time::sleep(2 * REFRESH + RETRY).await;
        assert_eq!(images.id("deep"), Ok("ami-1".to_owned()), "throttled, and still believed");
        tokio::time::sleep(BELIEVED).await;
        assert!(images.id("deep").is_err(), "for an hour only");
        fake.say(found("ami-1"));
        tokio::time::sleep(2 * RETRY).await;
        assert!(images.id("deep").is_ok());
        fake.say(Ok(None));
        tokio::time::sleep(2 * REFRESH).await;
        assert!(images.id("deep").unwrap_err().contains("no image"), "gone at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_comes_later_is_looked_up_at_once() {
        let fake = Fake::new(found("ami-1"));
        let images = Images::follow(fake.clone(), []);
        assert_eq!(images.id("deep").unwrap_err(), "image 'deep' is being looked up");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(images.id("deep"), Ok("ami-1".to_owned()));
        tokio::time::sleep(2 * WANTED).await;
        assert!(images.id("deep").is_err(), "what nobody asks for is forgotten");
    }
}
