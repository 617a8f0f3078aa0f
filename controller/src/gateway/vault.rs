//! What the gateway needs to have kept: launch secrets and the hashes of tokens.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};

use planner::{InstanceId, IntentId};

/// The secrets by which instances prove who they are.
pub trait Vault: Send + Sync + 'static {
    /// The secret of a launch call, for as long as one of its instances may still attach for the first time.
    fn launch_secret(
        &self,
        intent: &IntentId,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, VaultError>> + Send;
    /// The token of an instance, if one was issued.
    fn token(
        &self,
        instance: &InstanceId,
    ) -> impl Future<Output = Result<Option<TokenRecord>, VaultError>> + Send;
    /// Keeps it in place of an older one, durably before this resolves.
    fn put_token(
        &self,
        instance: &InstanceId,
        record: &TokenRecord,
    ) -> impl Future<Output = Result<(), VaultError>> + Send;
}

/// A token that was issued, as far as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// SHA-256 of the token's 32 bytes.
    pub hash: [u8; 32],
    /// The boot in which it was issued.
    pub boot_id: String,
    /// The sidecar is known to have it: the launch secret opens nothing more for this instance.
    pub used: bool,
}

/// What is kept could not be read or written: nobody can attach now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("vault: {0}")]
pub struct VaultError(pub String);

/// A vault without a disk, for simulations and tests.
#[derive(Default)]
pub struct MemoryVault {
    secrets: Mutex<BTreeMap<IntentId, Vec<u8>>>,
    tokens: Mutex<BTreeMap<InstanceId, TokenRecord>>,
}

impl MemoryVault {
    /// Keeps the secret of a launch call.
    pub fn put_launch_secret(&self, intent: IntentId, secret: Vec<u8>) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).insert(intent, secret);
    }
}

impl Vault for MemoryVault {
    async fn launch_secret(&self, intent: &IntentId) -> Result<Option<Vec<u8>>, VaultError> {
        Ok(self.secrets.lock().unwrap_or_else(PoisonError::into_inner).get(intent).cloned())
    }

    async fn token(&self, instance: &InstanceId) -> Result<Option<TokenRecord>, VaultError> {
        Ok(self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(instance).cloned())
    }

    async fn put_token(&self, instance: &InstanceId, record: &TokenRecord) -> Result<(), VaultError> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(instance.clone(), record.clone());
        Ok(())
    }
}
