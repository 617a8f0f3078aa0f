//! Ranges of seeds: over threads, resumable, block by block into a file.
//!
//! A file holds one JSON object a line, each for a block of seeds. A second call with the same file leaves out
//! the blocks that are there.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::faults;
use crate::run::run_seed;

/// Seeds of one line of the file.
const BLOCK: u64 = 100;

/// What is to be simulated.
#[derive(Debug, Args)]
pub struct ChaosArgs {
    /// Seeds to run, both ends included: `1..1000`.
    #[arg(long, value_name = "FIRST..LAST", value_parser = range, default_value = "1..1000")]
    pub seeds: (u64, u64),
    /// One seed alone.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    pub seed: Option<u64>,
    /// Tell the seed's story, event by event.
    #[arg(long, requires = "seed")]
    pub trace: bool,
    /// The totals as JSON.
    #[arg(long)]
    pub json: bool,
    /// Commit this deliberate fault (built with the feature `faults` only).
    #[arg(long, value_name = "NAME")]
    pub fault: Option<String>,
    /// Append results here, and leave out what is there already.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// A seed per thread.
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub threads: u64,
}

/// What came of a number of seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// How many.
    pub seeds: u64,
    /// Orders to drain that came to a sidecar.
    pub drains: u64,
    /// Instances launched.
    pub launches: u64,
    /// What must not be.
    pub violations: Vec<Violation>,
}

/// Something that must never be so, and where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The seed that repeats it.
    pub seed: u64,
    /// Which invariant.
    pub invariant: String,
    /// When, in milliseconds of the seed's time.
    pub at: u64,
    /// What was so.
    pub detail: String,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Block {
    first: u64,
    last: u64,
    fault: Option<String>,
    #[serde(flatten)]
    totals: Totals,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.drains += other.drains;
        self.launches += other.launches;
        self.violations.extend_from_slice(&other.violations);
    }
}

/// Runs what is asked for and prints it; true if nothing was violated. `command` repeats a seed, up to its number.
///
/// # Errors
/// A fault that this build does not have, or a file that cannot be read or written.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the command line's own output")]
pub fn chaos(args: &ChaosArgs, command: &str) -> anyhow::Result<bool> {
    let fault = args.fault.as_deref().map(faults::named).transpose()?;
    let (first, last) = args.seed.map_or(args.seeds, |seed| (seed, seed));
    let began = Instant::now();
    let mut totals = Totals::default();
    let (done, file) = opened(args)?;
    let mut blocks: Vec<(u64, u64)> = Vec::new();
    for start in (first..=last).step_by(usize::try_from(BLOCK)?) {
        let end = (start + BLOCK - 1).min(last);
        match done.get(&(start, end)) {
            Some(block) => totals.add(block),
            None => blocks.push((start, end)),
        }
    }
    let skipped = totals.seeds;
    let next = AtomicU64::new(0);
    let shared = Mutex::new((&mut totals, file));
    let failed: Mutex<Option<std::io::Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..args.threads.max(1) {
            scope.spawn(|| {
                faults::choose(fault);
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((first, last)) = usize::try_from(at).ok().and_then(|at| blocks.get(at)) else {
                        return;
                    };
                    let block = run_block(*first, *last, args);
                    let mut shared = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    shared.0.add(&block.totals);
                    if let Some(file) = &mut shared.1
                        && let Err(error) = write_line(file, &block)
                    {
                        *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                        return;
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error).context("append to the results");
    }
    let rate = rate(totals.seeds - skipped, began.elapsed());
    if args.json {
        println!("{}", serde_json::to_string(&totals)?);
    } else {
        let Totals { seeds, drains, launches, violations } = &totals;
        println!(
            "{seeds} seeds, {drains} drains, {launches} launches, {} violations, {rate} seeds an hour on {} threads",
            violations.len(),
            args.threads
        );
    }
    for violation in &totals.violations {
        let Violation { seed, invariant, at, detail } = violation;
        let minutes = *at as f64 / 60_000.0;
        let fault = args.fault.as_ref().map_or_else(String::new, |fault| format!(" --fault {fault}"));
        eprintln!(
            "seed {seed}, minute {minutes:.2}: {invariant}: {detail}\n    {command} --seed {seed} --trace{fault}"
        );
    }
    Ok(totals.violations.is_empty())
}

/// Runs a range on this thread.
pub fn run_range(first: u64, last: u64) -> Totals {
    let mut totals = Totals::default();
    for seed in first..=last {
        totals.add(&run_one(seed, false));
    }
    totals
}

fn run_one(seed: u64, trace: bool) -> Totals {
    let verdict = run_seed(seed, trace);
    let violations = verdict.broken.into_iter().map(|broken| Violation {
        seed,
        invariant: broken.invariant,
        at: broken.at,
        detail: broken.detail,
    });
    Totals { seeds: 1, drains: verdict.drains, launches: verdict.launches, violations: violations.collect() }
}

fn run_block(first: u64, last: u64, args: &ChaosArgs) -> Block {
    let totals = if args.trace { run_one(first, true) } else { run_range(first, last) };
    Block { first, last, fault: args.fault.clone(), totals }
}

/// Blocks by their first and last seed.
type Done = BTreeMap<(u64, u64), Totals>;

/// The blocks that are done, and the file for the others.
fn opened(args: &ChaosArgs) -> anyhow::Result<(Done, Option<File>)> {
    let Some(path) = &args.out else { return Ok((BTreeMap::new(), None)) };
    let named = || format!("results file {}", path.display());
    let file = OpenOptions::new().create(true).read(true).append(true).open(path).with_context(named)?;
    let mut done = BTreeMap::new();
    for line in BufReader::new(&file).lines() {
        let line = line.with_context(named)?;
        // The last line may be torn: its block is run again.
        if let Ok(block) = serde_json::from_str::<Block>(&line)
            && block.fault == args.fault
        {
            done.insert((block.first, block.last), block.totals);
        }
    }
    Ok((done, Some(file)))
}

fn write_line(file: &mut File, block: &Block) -> std::io::Result<()> {
    let mut line = serde_json::to_string(block)?;
    line.push('\n');
    file.write_all(line.as_bytes())
}

fn rate(seeds: u64, elapsed: Duration) -> u64 {
    (seeds as f64 / elapsed.as_secs_f64().max(0.001) * 3600.0) as u64
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let parsed = text.split_once("..").and_then(|(first, last)| {
        Some((first.trim().parse().ok()?, last.trim_start_matches('=').trim().parse().ok()?))
    });
    match parsed {
        Some((first, last)) if first <= last => Ok((first, last)),
        Some(_) | None => Err("expected FIRST..LAST, as 1..1000".to_owned()),
    }
}
