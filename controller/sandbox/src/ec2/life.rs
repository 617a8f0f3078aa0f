//! The life of an instance: pending, running as processes, and down again for whatever reason came first.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::sleep;

use super::Inner;
use super::instance::{Cause, State};
use crate::instances::{Boot, End, Image, Machine};

/// Lives one instance that was just launched.
pub(super) async fn live(inner: Arc<Inner>, id: String) {
    let Some(mut start) = Start::of(&inner, &id) else { return };
    let boot_delay = inner.world().options.boot_delay;
    let cause = tokio::select! {
        cause = ordered(&mut start.orders) => cause,
        () = sleep(boot_delay) => {
            set(&inner, &id, State::Running, None);
            run(&inner, &id, &mut start).await
        }
    };
    // Says the same again after an order, and tells EC2 of an end that came from within.
    inner.end(&id, cause);
    let shutdown_delay = inner.world().options.shutdown_delay;
    sleep(shutdown_delay).await;
    let down = inner.world().get(&id).map(|instance| instance.state);
    match down {
        Some(State::Stopping) => set(&inner, &id, State::Stopped, None),
        Some(State::Pending | State::Running | State::ShuttingDown | State::Stopped) => {
            set(&inner, &id, State::Terminated, None);
        }
        Some(State::Terminated) | None => {}
    }
}

/// What an instance starts from, taken out of the world.
struct Start {
    image: Image,
    user_data: Vec<u8>,
    orders: watch::Receiver<Option<Cause>>,
}

impl Start {
    fn of(inner: &Inner, id: &str) -> Option<Self> {
        let world = inner.world();
        let instance = world.get(id)?;
        Some(Self {
            image: instance.image.clone(),
            user_data: instance.user_data.clone(),
            orders: instance.order.subscribe(),
        })
    }
}

/// Runs it until it ends, and tells why it did. No process of it is left then.
async fn run(inner: &Inner, id: &str, start: &mut Start) -> Cause {
    if !start.image.runs() {
        return ordered(&mut start.orders).await;
    }
    let metadata = format!("http://{}/imds/{id}", inner.address);
    let boot = Boot { id, image: &start.image, user_data: &start.user_data, metadata };
    let machine = match inner.machines.boot(boot).await {
        Ok(machine) => machine,
        Err(error) => {
            tracing::warn!(instance = id, error = %std::error::Error::source(&error).unwrap_or(&error), "{error}");
            return Cause::Failed;
        }
    };
    run_machine(machine, &mut start.orders).await
}

async fn run_machine(mut machine: Machine, orders: &mut watch::Receiver<Option<Cause>>) -> Cause {
    tokio::select! {
        cause = ordered(orders) => {
            machine.stop().await;
            cause
        }
        end = machine.ended() => match end {
            End::PoweredOff => Cause::PoweredOff,
            End::Stopped | End::Failed => Cause::Failed,
        },
    }
}

async fn ordered(orders: &mut watch::Receiver<Option<Cause>>) -> Cause {
    match orders.wait_for(Option::is_some).await {
        Ok(cause) => cause.unwrap_or(Cause::Failed),
        // The instance was forgotten, which only happens to ended ones.
        Err(_) => Cause::Failed,
    }
}

fn set(inner: &Inner, id: &str, state: State, cause: Option<Cause>) {
    inner.world().set_state(id, state, cause);
    inner.changed();
}
