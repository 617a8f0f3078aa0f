//! Listings longer than a page.

use std::collections::HashSet;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::{Client, Repeat};
use crate::error::Error;

/// The most that the server gives at once.
pub(crate) const PAGE_SIZE: usize = 500;
/// A listing that does not end by then is no listing.
pub(crate) const MOST_PAGES: usize = 2_000;

/// What a listing's answer holds.
pub(crate) trait Page: DeserializeOwned {
    type Row;
    fn rows(self) -> Vec<Self::Row>;
    fn id(row: &Self::Row) -> &str;
}

#[derive(Serialize)]
struct Query<'a, Q> {
    #[serde(flatten)]
    query: &'a Q,
    page: usize,
    page_size: usize,
}

impl Client {
    /// Every row, each once.
    ///
    /// A page is a place in a listing that changes meanwhile: when a row leaves it, the next one moves up to
    /// a page that was read already, unseen. So a longer listing is read forth and back: whatever was in it
    /// all the time is met at least once, provided that it is ordered so that new rows come last.
    pub(crate) async fn pages<P: Page>(
        &self,
        endpoint: &'static str,
        query: &impl Serialize,
    ) -> Result<Vec<P::Row>, Error> {
        let mut rows = Vec::new();
        let mut seen = HashSet::new();
        let mut keep = |page: Vec<P::Row>| {
            rows.extend(page.into_iter().filter(|row| seen.insert(P::id(row).to_owned())));
        };
        let mut last = 0;
        loop {
            let page = self.page::<P>(endpoint, query, last).await?;
            let full = page.len() >= PAGE_SIZE;
            keep(page);
            if !full {
                break;
            }
            last += 1;
            if last == MOST_PAGES {
                let reason = format!("the listing did not end after {MOST_PAGES} pages");
                return Err(Error::Malformed { endpoint, reason });
            }
        }
        for page in (0..last).rev() {
            keep(self.page::<P>(endpoint, query, page).await?);
        }
        Ok(rows)
    }

    async fn page<P: Page>(
        &self,
        endpoint: &'static str,
        query: &impl Serialize,
        page: usize,
    ) -> Result<Vec<P::Row>, Error> {
        let query = Query { query, page, page_size: PAGE_SIZE };
        Ok(self.call::<P>(endpoint, &query, Repeat::Always).await?.rows())
    }
}
