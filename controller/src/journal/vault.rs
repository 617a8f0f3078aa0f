//! The journal as what the gateway keeps its secrets in.

use std::time::{SystemTime, UNIX_EPOCH};

use planner::{InstanceId, IntentId, Time};
use secrecy::ExposeSecret;

use super::Store;
use crate::gateway::{TokenRecord, Vault, VaultError};

impl Vault for Store {
    async fn launch_secret(&self, intent: &IntentId) -> Result<Option<Vec<u8>>, VaultError> {
        Ok(Self::launch_secret(self, intent).map(|secret| secret.expose_secret().to_vec()))
    }

    async fn token(&self, instance: &InstanceId) -> Result<Option<TokenRecord>, VaultError> {
        let known = Self::token(self, instance);
        Ok(known.map(|token| TokenRecord { hash: token.sha256, boot_id: token.boot_id, used: token.used }))
    }

    async fn put_token(&self, instance: &InstanceId, record: &TokenRecord) -> Result<(), VaultError> {
        let kept = super::TokenRecord {
            sha256: record.hash,
            boot_id: record.boot_id.clone(),
            used: record.used,
            created_at: wall_clock(),
        };
        self.store_token(instance, &kept).await.map_err(|error| VaultError(error.to_string()))
    }
}

/// Good enough for what it is used for: to forget a token a week later.
fn wall_clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
