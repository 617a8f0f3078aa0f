//! `controller run`: the autoscaler, until it is told to stop.

use std::path::Path;
use std::process::ExitCode;

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
    tokio::select! {
        () = service.shut_down(action) => {}
        again = super::stopped() => {
            again?;
            tracing::warn!("told to stop again: the fleet is left as it is");
        }
    }
    service.stop().await;
    Ok(ExitCode::SUCCESS)
}
