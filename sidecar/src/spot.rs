//! AWS's notice of a spot interruption, looked for every other second; a rebalance recommendation is a hint
//! for the log alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::log;
use crate::probe::{self, Imds, ImdsError};

/// The notice is to be seen within 5 s.
const EVERY: Duration = Duration::from_secs(2);
/// The hint is asked for with every so many looks.
const HINT_EVERY: u32 = 15;

/// Tells when the machine is taken, on CLOCK_BOOTTIME, once AWS has said so, and again if it says otherwise.
/// Ends at once on a machine that is never taken.
pub(crate) async fn watch(seen: mpsc::Sender<Duration>) {
    let Ok(mut imds) = Imds::from_environment() else { return };
    loop {
        match imds.life_cycle().await {
            Ok(kind) if kind == "spot" => break,
            Ok(_) => return,
            Err(error) => log::warn(format_args!("is this a spot instance? {}", log::chain(&error))),
        }
        sleep(EVERY * 5).await;
    }
    let mut told: Option<u64> = None;
    let mut hinted = false;
    for look in 0_u32.. {
        if !hinted && look % HINT_EVERY == 0 && imds.rebalance().await.is_ok() {
            hinted = true;
            log::info(format_args!("AWS recommends to rebalance: the instance may be taken soon"));
        }
        match imds.spot_action().await {
            Ok(action) => match action_time(&action) {
                Some(time) if told != Some(time) => {
                    told = Some(time);
                    let left = Duration::from_secs(time).saturating_sub(wall_clock());
                    log::warn(format_args!("AWS takes this spot instance back in {} s", left.as_secs()));
                    if seen.send(probe::now() + left).await.is_err() {
                        return;
                    }
                }
                Some(_) => {}
                None => log::warn(format_args!("a spot notice without a time: {action:?}")),
            },
            Err(ImdsError::Status(404)) => {}
            Err(error) => log::warn(format_args!("{}", log::chain(&error))),
        }
        sleep(EVERY).await;
    }
}

fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `{"action": "terminate", "time": "2017-09-18T08:22:00Z"}`, in seconds since the Unix epoch. Whatever the
/// action is, the task there ends.
fn action_time(action: &str) -> Option<u64> {
    let action: serde_json::Value = serde_json::from_str(action).ok()?;
    seconds(action.get("time")?.as_str()?)
}

/// AWS's spelling: UTC, whole seconds.
fn seconds(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, by: char| -> Option<[u64; 3]> {
        let parts: Vec<u64> = text.split(by).map(|part| part.parse().ok()).collect::<Option<_>>()?;
        parts.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time.split_once('.').map_or(time, |(whole, _)| whole), ':')?;
    let sane = (1970..3000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !sane || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days of the civil calendar, with years that begin in March.
    let (shifted, from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + of_year;
    let since_epoch = days.checked_sub(719_468)?;
    Some(since_epoch * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn awss_times_are_read() {
        let notice = r#"{"action": "terminate", "time": "2026-11-23T18:51:25Z"}"#;
        assert_eq!(action_time(notice), Some(1_795_459_885));
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2024-02-29T12:00:00Z"), Some(1_709_208_000));
        for nonsense in
            ["", "2026-11-23 18:51:25", "2026-13-01T00:00:00Z", "0000-01-01T00:00:00Z", "x-y-zTa:b:cZ"]
        {
            assert_eq!(seconds(nonsense), None, "{nonsense}");
        }
        assert_eq!(action_time("{}"), None);
    }
}
