//! What the sidecar costs its machine. Printed, and judged by nobody:
//!
//!     cargo build --profile tiny --bin sidecar
//!     TMPDIR=/dev/shm SIDECAR=$PWD/target/tiny/sidecar SECONDS=300 cargo test -p sidecar --test session figures -- \
//!         --ignored --nocapture
//!
//! On an instance the gate's files are in memory too, hence TMPDIR.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::controller::Controller;
use crate::life::{Instance, SCRIPT, welcome};

#[tokio::test]
#[expect(clippy::print_stdout, reason = "its only result")]
#[ignore = "takes minutes, and is of use with the small build alone"]
async fn figures() {
    let executable =
        std::env::var_os("SIDECAR").map_or_else(|| env!("CARGO_BIN_EXE_sidecar").into(), PathBuf::from);
    let seconds = std::env::var("SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
    let size = fs::metadata(&executable).unwrap().len();
    let executable = fs::canonicalize(executable).unwrap();
    let mut controller = Controller::start().await;
    let began = Instant::now();
    let instance = Instance::start_executable(&controller, executable).await;
    let mut session = controller.session().await;
    let greeted = began.elapsed();
    fs::create_dir_all(instance.gate()).unwrap();
    fs::write(instance.gate().join("polls"), "").unwrap();
    session.say(welcome(Some(SCRIPT))).await;
    session.report(|report| report.boot_phase == "ready").await;

    let pid = instance.sidecar.id();
    let rest = Duration::from_secs(10);
    let mut reports = 0;
    drain(&mut session, rest, &mut reports).await;
    reports = 0;
    let (cpu, began) = (cpu(pid), Instant::now());
    drain(&mut session, Duration::from_secs(seconds), &mut reports).await;
    let (cpu, elapsed) = (self::cpu(pid) - cpu, began.elapsed());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim();
    println!("size {size} bytes; exec to hello {greeted:?}; RSS {memory}; {reports} reports in {elapsed:?}");
    println!("CPU {cpu:?}: {:.4} % of a core", 100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64());
}

async fn drain(session: &mut crate::controller::Session, duration: Duration, reports: &mut u32) {
    let receive = async {
        while let Ok(Some(_)) = session.incoming.message().await {
            *reports += 1;
        }
    };
    let _ = tokio::time::timeout(duration, receive).await;
}

/// The time that all of its threads ran.
fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let times = threads.filter_map(|thread| {
        let stat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}
