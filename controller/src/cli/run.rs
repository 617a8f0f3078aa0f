//! `controller run`: the autoscaler, until it is told to stop.

use std::path::Path;
use std::process::ExitCode;

use planner::ShutdownAction;

use super::env;
use crate::service::{self, Service};

pub(crate) async fn run(config_file: &Path) -> anyhow::Result<ExitCode> {
    let input = service::Input::load(config_file, &env)?;
    let service = Service::start(input).await?;
    let hangups = super::reload::on_hangup(service.reloader());
    tokio::select! {
        stopped = super::stopped() => stopped?,
        watched = hangups => watched?,
    }
    let action = service.shutdown_action();
    tracing::info!(shutdown_action = %action, "told to stop");
    shut_down(&service, action).await?;
    service.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Does with the fleet what is to be done; a second signal leaves it as it is.
///
/// # Errors
/// If signals can't be watched.
pub(super) async fn shut_down(service: &Service, action: ShutdownAction) -> anyhow::Result<()> {
    tokio::select! {
        () = service.shut_down(action) => Ok(()),
        again = super::stopped() => {
            tracing::warn!("told to stop again: the fleet is left as it is");
            again
        }
    }
}
