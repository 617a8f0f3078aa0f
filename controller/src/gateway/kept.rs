//! The gateway's key, as the journal keeps it.

use engine::ports::JournalError;

use super::identity::{Identity, IdentityError};
use crate::journal::Store;

/// The key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It can't be kept, so nothing may be pinned on it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It is of no use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Identity {
    /// The key that the journal keeps; at the first start a new one, kept from then on.
    ///
    /// # Errors
    /// If what is kept is no key, or a new one can't be kept.
    pub async fn of(store: &Store) -> Result<Self, KeepError> {
        if let Some(kept) = store.identity() {
            return Ok(Self::from_pkcs8(&kept)?);
        }
        let identity = Self::generate()?;
        store.store_identity(identity.pkcs8()).await?;
        Ok(identity)
    }
}
