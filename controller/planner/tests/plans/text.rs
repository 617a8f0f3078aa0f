//! A snapshot and its policy from text, a line for each fact. All instants are relative to now: `-5m`, `+10s`.

use std::collections::BTreeMap;
use std::time::Duration;

use planner::{
    Answer, Boots, Cause, ClientToken, Freshness, Instance, InstanceId, Intent, IntentId, Loss, LostReason,
    Market, Marks, Notice, Offering, Order, OrderKind, OtherWorker, Pause, Placement, Policy, Pool,
    QueueName, Requeue, Resource, ResourceName, SidecarMode, Signal, Snapshot, Source, State, TaskId,
    TaskRef, TaskStatus, Time, Touch, Word, Worker, WorkerId,
};

/// The instant of every story.
pub(crate) const NOW: Time = Time(1_700_000_000_000);

/// The story's world: what stands above its `---`.
pub(crate) fn parse(text: &str) -> (Policy, Snapshot) {
    let mut policy = Policy {
        fleet: "fleet".into(),
        prefix: "dynamic".into(),
        pools: Vec::new(),
        resources: BTreeMap::new(),
        max_idle: Duration::from_secs(900),
        max_spin_up: Duration::from_secs(1800),
        sidecar: SidecarMode::Required,
        silent_grace: Duration::from_secs(600),
        order_patience: Duration::from_secs(10),
        launches_per_minute: 600,
        shutdown: None,
        requeue: Requeue::default(),
    };
    let mut snapshot = Snapshot {
        now: NOW,
        started_at: instant("-1h"),
        lease_held: true,
        epoch: 3,
        next_intent: 1,
        server_ahead_ms: Some(0),
        ..Snapshot::default()
    };
    for (source, age) in [(Source::Queues, "-1s"), (Source::Workers, "-2s"), (Source::Cloud, "-3s")] {
        snapshot.freshness.insert(source, freshness(age));
    }
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words = Words::of(line);
        fact(&mut policy, &mut snapshot, &words);
    }
    (policy, snapshot)
}

/// A line: plain words, `key=value`s, and one text in quotes.
struct Words<'a> {
    line: &'a str,
    plain: Vec<&'a str>,
    keyed: BTreeMap<&'a str, &'a str>,
    quoted: &'a str,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        let (rest, quoted) = match line.split_once('"') {
            Some((rest, quoted)) => (rest, quoted.trim_end_matches('"')),
            None => (line, ""),
        };
        let (keyed, plain): (Vec<&str>, Vec<&str>) =
            rest.split_whitespace().partition(|word| word.contains('='));
        let keyed = keyed.into_iter().map(|word| word.split_once('=').unwrap()).collect();
        Self { line, plain, keyed, quoted }
    }

    fn at(&self, place: usize) -> &'a str {
        self.plain.get(place).unwrap_or_else(|| panic!("word {place} is missing: {}", self.line))
    }

    fn number<T: std::str::FromStr>(&self, key: &str, otherwise: T) -> T {
        self.keyed.get(key).map_or(otherwise, |text| {
            text.parse().unwrap_or_else(|_| panic!("{key}: no number: {}", self.line))
        })
    }

    fn instant(&self, key: &str, otherwise: Time) -> Time {
        self.keyed.get(key).map_or(otherwise, |text| instant(text))
    }
}

#[allow(clippy::too_many_lines, reason = "one arm for each kind of fact")]
fn fact(policy: &mut Policy, snapshot: &mut Snapshot, words: &Words<'_>) {
    match words.at(0) {
        "policy" => settings(policy, words),
        "pool" => pool(policy, snapshot, words),
        "run" => {
            snapshot.started_at = words.instant("started", snapshot.started_at);
            snapshot.epoch = words.number("epoch", snapshot.epoch);
            snapshot.next_intent = words.number("next", snapshot.next_intent);
            snapshot.lease_held = words.keyed.get("lease") != Some(&"lost");
            snapshot.journal_is_new = words.keyed.get("journal") == Some(&"new");
        }
        "read" => {
            for (name, age) in &words.keyed {
                let source = source(name);
                if *age == "never" {
                    snapshot.freshness.remove(&source);
                } else {
                    snapshot.freshness.insert(source, freshness(age));
                }
            }
        }
        "queue" => {
            let tasks = words.plain[2..].iter().map(|task| TaskId::from(*task)).collect();
            snapshot.queues.insert(words.at(1).into(), tasks);
        }
        "instance" => {
            let (id, instance) = instance(policy, snapshot, words);
            snapshot.instances.insert(id, instance);
        }
        "worker" => {
            let task = words.keyed.get("task").map(|task| TaskId::from(*task));
            snapshot.workers.insert(worker(snapshot, words.at(1)), Worker { task });
        }
        "running" => {
            let last_worker = words.plain.get(2).map(|name| worker(snapshot, name));
            let task = TaskRef { last_worker, ..task(words, TaskStatus::InProgress) };
            snapshot.running.push(task);
        }
        // `left t1 gpu out=-90s`: queued, and on no queue's list since then.
        "left" => {
            let out_since = Some(words.instant("out", instant("-90s")));
            let queue = Some(words.at(2).into());
            snapshot.unplaced.push(TaskRef { queue, out_since, ..task(words, TaskStatus::Queued) });
        }
        // `marked t1 stopped gpu ..`: with our tag.
        "marked" => {
            let status = match words.at(2) {
                "created" => TaskStatus::Created,
                "queued" => TaskStatus::Queued,
                "stopped" => TaskStatus::Stopped,
                "ended" => TaskStatus::Ended,
                other => panic!("no such status: {other}"),
            };
            let last_worker = words.keyed.get("worker").map(|name| worker(snapshot, name));
            let mut task = TaskRef { last_worker, ..task(words, status) };
            task.marks.tagged = true;
            task.queue = Some(words.at(3).into());
            snapshot.marked.push(task);
        }
        "touched" => {
            let at = words.instant("at", NOW);
            let not_before = words.instant("until", at);
            snapshot.touched.insert(words.at(1).into(), Touch { at, not_before });
        }
        "other" => {
            let queues = words.plain[2..].iter().map(|queue| QueueName::from(*queue)).collect();
            let task = words.keyed.get("task").map(|task| TaskId::from(*task));
            snapshot.others.insert(words.at(1).into(), OtherWorker { queues, task });
        }
        "server" => {
            snapshot.server_ahead_ms = match words.at(1) {
                "unknown" => None,
                ahead => Some(i64::try_from(millis(ahead)).unwrap()),
            };
        }
        "intent" => {
            let (id, intent) = intent(policy, words);
            snapshot.intents.insert(id, intent);
        }
        "unavailable" => {
            let until = words.instant("until", NOW);
            snapshot.unavailable.insert(offering(words.at(1)), (until, words.quoted.to_owned()));
        }
        "boots" => {
            let boots = Boots {
                proven: words.plain.get(2) == Some(&"proven"),
                failed: words.number("failed", 0),
                last_failed_at: words.instant("last", NOW),
                reason: words.quoted.to_owned(),
            };
            snapshot.boots.insert(words.at(1).into(), boots);
        }
        "launched" => {
            snapshot.launches.push((instant(words.at(1)), words.at(2).parse().unwrap()));
        }
        "operator" => operator(snapshot, words),
        // `gone i-1 since=-40s`: also a loss, `spot` and `stranger` say more of it.
        "gone" => {
            let id = InstanceId::from(words.at(1));
            let is = |word: &str| words.plain[2..].contains(&word);
            let first_seen = words.instant("since", instant("-1m"));
            let loss = Loss { first_seen, by_spot: is("spot"), was_ours: !is("stranger") };
            snapshot.losses.insert(id.clone(), loss);
            snapshot.proven_gone.insert(id);
        }
        other => panic!("no such fact: {other}"),
    }
}

/// `operator pause since=-5m "night"`, `operator drain i-1 since=-1m`.
fn operator(snapshot: &mut Snapshot, words: &Words<'_>) {
    let since = words.instant("since", instant("-1m"));
    match words.at(1) {
        "pause" => {
            let reason = (!words.quoted.is_empty()).then(|| words.quoted.to_owned());
            snapshot.operator.paused = Some(Pause { since, reason });
        }
        "drain" => {
            snapshot.operator.drains.insert(words.at(2).into(), since);
        }
        other => panic!("no such wish: {other}"),
    }
}

/// What stands after a task's name: `changed=-5m`, `same=-5m`, `queue=gpu`, `"message|reason"`, and its marks.
fn task(words: &Words<'_>, status: TaskStatus) -> TaskRef {
    let changed = words.instant("changed", instant("-10m"));
    let (message, reason) = words.quoted.split_once('|').unwrap_or((words.quoted, ""));
    let marks = Marks {
        tagged: words.keyed.contains_key("cause"),
        cause: words.keyed.get("cause").map(|cause| match *cause {
            "spot" => Cause::Spot,
            "gone" => Cause::Gone,
            "stranded" => Cause::Stranded,
            other => panic!("no such cause: {other}"),
        }),
        instance: words.keyed.get("of").map(|id| InstanceId::from(*id)),
        aborting: words.keyed.contains_key("aborting"),
        attempts: words.number("attempts", 0),
        stopped_at: words.keyed.get("counted").map(|at| instant(at)),
        resetting: words.keyed.get("resetting").map(|number| number.parse().unwrap()),
    };
    TaskRef {
        task: words.at(1).into(),
        status,
        status_changed: Some(changed),
        last_update: Some(words.instant("update", changed)),
        status_message: message.to_owned(),
        status_reason: reason.to_owned(),
        queue: words.keyed.get("queue").map(|queue| QueueName::from(*queue)),
        last_worker: None,
        abort_timeout: words.number("abort", 0),
        marks,
        unchanged_since: words.instant("same", changed),
        out_since: None,
    }
}

/// What the sidecar said: `held=t1,t2`, `settled=-1s`, `work=t1` or `work=none`, `notice=+90s`, `killed=yes`.
fn word(words: &Words<'_>, state: &State, signal: Signal) -> Word {
    let names = |text: &str| text.split(',').filter(|name| *name != "none").map(TaskId::from).collect();
    let busy = match state {
        State::Busy { task } => task.clone(),
        _ => None,
    };
    let held = words.keyed.get("held").map_or_else(|| busy.into_iter().collect(), |text| names(text));
    let told = (signal == Signal::Sidecar).then(|| instant("-1s"));
    Word {
        held,
        settled_at: match words.keyed.get("settled") {
            Some(&"never") => None,
            Some(text) => Some(instant(text)),
            None => told,
        },
        at_work: words.keyed.get("work").map(|text| names(text)),
        notice: words.keyed.get("notice").map(|text| Notice {
            seen_at: words.instant("seen", instant("-5s")),
            ends_at: instant(text),
            killed: words.keyed.contains_key("killed"),
        }),
    }
}

fn settings(policy: &mut Policy, words: &Words<'_>) {
    for (key, value) in &words.keyed {
        match *key {
            "sidecar" if *value == "off" => policy.sidecar = SidecarMode::Off,
            "sidecar" => policy.sidecar = SidecarMode::Required,
            "idle" => policy.max_idle = duration(value),
            "spin-up" => policy.max_spin_up = duration(value),
            "grace" => policy.silent_grace = duration(value),
            "patience" => policy.order_patience = duration(value),
            "per-minute" => policy.launches_per_minute = value.parse().unwrap(),
            "shutdown" => policy.shutdown = Some(value.parse().unwrap()),
            "requeue" => policy.requeue.when = value.parse().unwrap(),
            "reset" => policy.requeue.reset = *value == "yes",
            other => panic!("no such setting: {other}"),
        }
    }
}

fn pool(policy: &mut Policy, snapshot: &mut Snapshot, words: &Words<'_>) {
    let resource = ResourceName::from(words.at(2));
    let offerings = words.plain[3..].iter().map(|text| offering(text)).collect();
    let blocked = (!words.quoted.is_empty()).then(|| words.quoted.to_owned());
    policy.resources.insert(resource.clone(), Resource { offerings, blocked });
    // Stories of boots say otherwise.
    snapshot.boots.insert(resource.clone(), Boots { proven: true, ..Boots::default() });
    policy.pools.push(Pool { queue: words.at(1).into(), resource, maximum: words.number("max", 1) });
}

fn instance(policy: &Policy, snapshot: &Snapshot, words: &Words<'_>) -> (InstanceId, Instance) {
    let (id, resource, queue) = (InstanceId::from(words.at(1)), words.at(2), QueueName::from(words.at(3)));
    let state = state(words.at(4));
    let resource = ResourceName::from(resource);
    let sold = policy.resources.get(&resource).and_then(|resource| resource.offerings.first().cloned());
    let offering = match words.keyed.get("offering") {
        Some(text) => offering(text),
        None => sold.unwrap_or_else(|| offering("spot:t3.large")),
    };
    let launched_at = words.instant("launched", instant("-30m"));
    let up = !matches!(state, State::Requested | State::Pending | State::Booting { .. });
    let signal = match words.keyed.get("signal") {
        Some(&"sidecar") => Signal::Sidecar,
        Some(&"clearml") => Signal::Clearml,
        Some(_) => Signal::None,
        None if matches!(state, State::Lost { .. } | State::Terminating | State::Gone) || !up => Signal::None,
        None if policy.sidecar == SidecarMode::Off => Signal::Clearml,
        None => Signal::Sidecar,
    };
    let ready_at = match words.keyed.get("ready") {
        Some(&"never") => None,
        Some(text) => Some(instant(text)),
        None => up.then(|| launched_at.after(Duration::from_secs(60))),
    };
    let kind = offering.instance_type.clone();
    let instance = Instance {
        worker: WorkerId::of(&policy.prefix, &resource, &kind, &id),
        resource,
        queue,
        offering,
        zone: if words.keyed.get("zone") == Some(&"none") || state == State::Requested {
            None
        } else {
            Some("us-east-1b".to_owned())
        },
        intent: words.keyed.get("intent").map(|text| IntentId::from(*text)),
        kept: words.plain.contains(&"kept"),
        accounted: !words.plain.contains(&"unaccounted"),
        launched_at,
        adopted_at: words.instant("adopted", launched_at.max(snapshot.started_at)),
        ready_at,
        since: words.instant("since", instant("-1m")),
        signal,
        finishing: words.keyed.get("gate") == Some(&"finishing"),
        last_order: words.keyed.get("order").map(|text| last_order(text)),
        word: word(words, &state, signal),
        state,
    };
    (id, instance)
}

/// `drain/3.1/-5s/awaited`: kind, epoch and generation, when it was sent, what came of it.
fn last_order(text: &str) -> (Order, Time, Answer) {
    let parts: Vec<&str> = text.split('/').collect();
    let (epoch, generation) = parts[1].split_once('.').unwrap();
    let kind = match parts[0] {
        "drain" => OrderKind::Drain,
        "finish" => OrderKind::Finish,
        "undrain" => OrderKind::Undrain,
        "retire" => OrderKind::Retire,
        other => panic!("no such order: {other}"),
    };
    let answer = match parts[3].split_once(':').unwrap_or((parts[3], "")) {
        ("awaited", _) => Answer::Awaited,
        ("done", _) => Answer::Done,
        ("busy", task) => Answer::RefusedBusy((!task.is_empty()).then(|| task.into())),
        ("unsure", _) => Answer::RefusedUnsure,
        ("stale", _) => Answer::RefusedStale,
        (other, _) => panic!("no such answer: {other}"),
    };
    let order = Order { epoch: epoch.parse().unwrap(), generation: generation.parse().unwrap(), kind };
    (order, instant(parts[2]), answer)
}

fn state(text: &str) -> State {
    let (name, detail) = text.split_once(':').unwrap_or((text, ""));
    match name {
        "requested" => State::Requested,
        "pending" => State::Pending,
        "booting" => State::Booting { phase: detail.to_owned() },
        "idle" => State::Idle,
        "busy" => State::Busy { task: (!detail.is_empty()).then(|| detail.into()) },
        "draining" => State::Draining,
        "drained" => State::Drained,
        "retiring" => State::Retiring,
        "retired" => State::Retired,
        "terminating" => State::Terminating,
        "gone" => State::Gone,
        "lost" => State::Lost {
            reason: match detail {
                "never-attached" => LostReason::NeverAttached,
                "agent-dead" => LostReason::AgentDead,
                _ => LostReason::SessionLost,
            },
        },
        other => panic!("no such state: {other}"),
    }
}

fn intent(policy: &Policy, words: &Words<'_>) -> (IntentId, Intent) {
    let resource = ResourceName::from(words.at(2));
    let created_at = words.instant("created", instant("-10s"));
    let answered = words.keyed.get("answered").map(|ids| ids.split(',').map(InstanceId::from).collect());
    let queue = policy.pool(&resource).map_or_else(|| "elsewhere".into(), |pool| pool.queue.clone());
    let sold = policy.resources.get(&resource).and_then(|resource| resource.offerings.first().cloned());
    let intent = Intent {
        resource,
        queue,
        offering: sold.unwrap_or_else(|| offering("spot:t3.large")),
        count: words.number("count", 1),
        token: ClientToken(format!("token-of-{}", words.at(1))),
        created_at,
        retry_at: words.instant("retry", created_at),
        answered,
    };
    (words.at(1).into(), intent)
}

/// A worker by its instance, `i-1` or `i-1:child`; of an instance that nobody knows, a made-up one.
fn worker(snapshot: &Snapshot, name: &str) -> WorkerId {
    let (id, child) = name.split_once(':').unwrap_or((name, ""));
    let own = snapshot
        .instances
        .get(&InstanceId::from(id))
        .map_or_else(|| format!("dynamic:ghost:t3.large:{id}"), |instance| instance.worker.to_string());
    WorkerId(if child.is_empty() { own } else { format!("{own}:{child}") })
}

/// `spot:g4dn.xlarge@us-east-1b`, `on-demand:c5.large@subnet-1`, `spot:t3.large`.
pub(crate) fn offering(text: &str) -> Offering {
    let (market, rest) = text.split_once(':').unwrap_or_else(|| panic!("no offering: {text}"));
    let (kind, place) = rest.split_once('@').unwrap_or((rest, ""));
    let placement = match place {
        "" => Placement::Any,
        subnet if subnet.starts_with("subnet-") => Placement::Subnet(subnet.to_owned()),
        zone => Placement::Zone(zone.to_owned()),
    };
    let market = if market == "spot" { Market::Spot } else { Market::OnDemand };
    Offering { instance_type: kind.into(), placement, market }
}

fn source(name: &str) -> Source {
    match name {
        "queues" => Source::Queues,
        "workers" => Source::Workers,
        "tasks" => Source::Tasks,
        "cloud" => Source::Cloud,
        other => panic!("no such source: {other}"),
    }
}

/// `-5s`, or `-40s/stale-20s`.
fn freshness(text: &str) -> Freshness {
    let (began, stale) =
        text.split_once("/stale").map_or((text, None), |(began, since)| (began, Some(since)));
    Freshness { read_began_at: instant(began), stale_since: stale.map(instant) }
}

fn instant(text: &str) -> Time {
    match (text.strip_prefix('-'), text.strip_prefix('+')) {
        (Some(ago), _) => Time(NOW.0 - millis(ago)),
        (_, Some(ahead)) => Time(NOW.0 + millis(ahead)),
        (None, None) if text == "now" => NOW,
        (None, None) => panic!("no instant: {text}"),
    }
}

fn duration(text: &str) -> Duration {
    Duration::from_millis(millis(text))
}

/// `2h`, `15m`, `90s`, `1m30s`, `250ms`.
fn millis(text: &str) -> u64 {
    let mut total = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or_else(|| panic!("no unit: {text}"));
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let unit = match &rest[digits..unit_end] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            other => panic!("no such unit: {other}"),
        };
        total += rest[..digits].parse::<u64>().unwrap() * unit;
        rest = &rest[unit_end..];
    }
    total
}
