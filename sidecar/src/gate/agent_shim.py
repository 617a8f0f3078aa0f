"""Starts clearml-agent behind a gate, so that it can be drained without a race.

    PYTHON agent_shim.py --gate-dir DIR [--self-idle-limit SECONDS --power-off COMMAND] -- ARGUMENTS

runs `python -m clearml_agent ARGUMENTS` in this very process, after wrapping the two names through which the
daemon takes work and ends it. It polls only while it holds the gate's lock shared and the lease is valid; whoever
holds the lock exclusively and finds the state idle knows that this agent holds no task and will not get one.
The children that the agent starts are plain clearml_agent. Python 3.6 and later, nothing but the standard library.

With --self-idle-limit there is no sidecar: the gate needs no lease, closes for good once the agent was idle for
that long, and the machine is powered off.
"""
import argparse
import errno
import fcntl
import os
import runpy
import shlex
import subprocess
import sys
import threading
import time

CLOCK_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", 7)
# A drain holds the lock for milliseconds. Longer than this and it is as good as closed.
LOCK_WAIT_SECONDS = 2.0
LOCK_RETRY_SECONDS = 0.02
# A failed poll may have taken a task off its queue. Without a sidecar, the next poll must settle it; if none
# does for this many idle limits, the server is gone for good.
UNKNOWN_LIMIT_FACTOR = 10
# The agent takes its time to start, and is not idle before it could take work. One that never does is of no use.
START_LIMIT_SECONDS = 600.0
POWER_OFF_RETRY_SECONDS = 15.0
EXIT_CANNOT_GATE = 3


def log(message):
    """To the stderr that this process began with: the agent puts its own in place of it."""
    try:
        sys.__stderr__.write("agent_shim: {}\n".format(message))
        sys.__stderr__.flush()
    except Exception:
        pass


def boottime():
    return int(time.clock_gettime(CLOCK_BOOTTIME) * 1e9)


class Gate(object):
    """The files of one gate directory, from the agent's side."""

    def __init__(self, directory, needs_lease):
        self.directory = directory
        self.needs_lease = needs_lease
        self.closed_for_good = False
        # When the agent was last known to hold a task, or when it began.
        self.idle_since = boottime()
        self.has_polled = False
        self.kind = "idle"
        self.pid = None
        # Between the agent's thread and the idle watch.
        self.mutex = threading.RLock()

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        """Replaces a file at once and whole; False, and a line in the log, if it could not be."""
        temporary = self.path("." + name + ".shim")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(descriptor, (text + "\n").encode("utf-8"))
            finally:
                os.close(descriptor)
            os.rename(temporary, self.path(name))
            return True
        except OSError as error:
            log("cannot write {}: {}".format(self.path(name), error))
            return False

    def prepare(self):
        try:
            os.makedirs(self.directory, 0o700)
        except OSError as error:
            if error.errno != errno.EEXIST:
                log("cannot make {}: {}".format(self.directory, error))
        self.follow_pid()
        self.set("idle")

    def follow_pid(self):
        """A daemon that detaches itself goes on under another pid."""
        if self.pid != os.getpid() and self.write("pid", str(os.getpid())):
            self.pid = os.getpid()
            return True
        return False

    def set(self, kind):
        """Writes the state. Idle and polling carry the begin of idleness, the others their own."""
        with self.mutex:
            self.kind = kind
            since = self.idle_since if kind in ("idle", "polling") else boottime()
            return self.write("state", "{} {}".format(kind, since))

    def ended(self):
        """The agent holds no task any more: idleness begins."""
        with self.mutex:
            self.idle_since = boottime()
            self.set("idle")

    def rest(self):
        """No poll now. Whatever task was popped before is not held: the agent is back for the next one.

        A failed poll stays unsettled, as only another poll can tell.
        """
        with self.mutex:
            if self.kind.startswith("busy:"):
                self.ended()
            elif self.kind != "unknown":
                self.set("idle")

    def is_open(self):
        if self.closed_for_good:
            return False
        if not self.needs_lease:
            return True
        try:
            with open(self.path("lease")) as lease:
                return int(lease.read(64).strip()) > boottime()
        except (OSError, IOError, ValueError):
            return False

    def lock_shared(self):
        """The descriptor that holds the lock, or None if it was not to be had."""
        try:
            descriptor = os.open(self.path("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            log("cannot open the lock: {}".format(error))
            return None
        limit = time.monotonic() + LOCK_WAIT_SECONDS
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return descriptor
                except OSError as error:
                    if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                        log("cannot take the lock: {}".format(error))
                        break
                if time.monotonic() > limit:
                    break
                time.sleep(LOCK_RETRY_SECONDS)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def poll(self, original, args, kwargs):
        descriptor = self.lock_shared()
        if descriptor is None:
            self.rest()
            return {}
        try:
            with self.mutex:
                if self.kind.startswith("busy:") or not (self.has_polled or self.needs_lease):
                    self.idle_since = boottime()
                self.has_polled = True
                # An unwritten state would hide the poll from the sidecar: then there must be none.
                if not self.is_open() or not self.set("polling"):
                    self.rest()
                    return {}
            try:
                response = original(*args, **kwargs)
            except BaseException:
                self.set("unknown")
                raise
            task = task_of(response)
            self.set("busy:" + task if task else "idle")
            return response
        finally:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            finally:
                os.close(descriptor)


def task_of(response):
    try:
        task = response["entry"]["task"]
    except (KeyError, TypeError, AttributeError, IndexError):
        return None
    return "".join(str(task).split()) or None


class IdleWatch(object):
    """Without a sidecar: closes the gate at the idle limit and powers the machine off."""

    def __init__(self, gate, limit_seconds, power_off):
        self.gate = gate
        self.limit = int(limit_seconds * 1e9)
        self.power_off = shlex.split(power_off)

    def start(self):
        thread = threading.Thread(target=self.run, name="idle-watch")
        thread.daemon = True
        thread.start()

    def due(self):
        """The time left in nanoseconds, None while a task is held or a poll is in flight."""
        kind = self.gate.kind
        if kind == "idle":
            limit = self.limit if self.gate.has_polled else max(self.limit, int(START_LIMIT_SECONDS * 1e9))
            return self.gate.idle_since + limit - boottime()
        if kind == "unknown":
            return self.gate.idle_since + UNKNOWN_LIMIT_FACTOR * self.limit - boottime()
        return None

    def run(self):
        while True:
            with self.gate.mutex:
                left = self.due()
                if left is not None and left <= 0:
                    self.gate.closed_for_good = True
            if self.gate.closed_for_good:
                break
            time.sleep(1.0 if left is None else max(0.05, min(1.0, left / 1e9)))
        log("idle for too long: powering off")
        while True:
            try:
                subprocess.call(self.power_off)
            except Exception as error:
                log("cannot power off: {}".format(error))
            time.sleep(POWER_OFF_RETRY_SECONDS)


def wrap(gate, watch):
    """Puts the gate between the daemon and its queues. False if this agent has other names."""
    try:
        import clearml_agent.commands.worker as worker

        get_next_task = worker.get_next_task
        run_one_task = worker.Worker.run_one_task
    except Exception as error:
        log("this clearml_agent cannot be gated: {!r}".format(error))
        return False
    if not callable(get_next_task) or not callable(run_one_task):
        log("this clearml_agent cannot be gated: its names mean something else")
        return False

    def gated_get_next_task(*args, **kwargs):
        if gate.follow_pid() and watch is not None:
            # Threads do not survive the fork by which a daemon detaches itself.
            watch.start()
        return gate.poll(get_next_task, args, kwargs)

    def gated_run_one_task(*args, **kwargs):
        try:
            return run_one_task(*args, **kwargs)
        finally:
            gate.ended()

    worker.get_next_task = gated_get_next_task
    worker.Worker.run_one_task = gated_run_one_task
    return True


def main():
    arguments = sys.argv[1:]
    if "--" not in arguments:
        sys.exit("agent_shim: no -- before the agent's arguments")
    split = arguments.index("--")
    parser = argparse.ArgumentParser(prog="agent_shim.py")
    parser.add_argument("--gate-dir", required=True)
    parser.add_argument("--self-idle-limit", type=float)
    parser.add_argument("--power-off", default="shutdown -P now")
    options = parser.parse_args(arguments[:split])

    # As `python -m` has it: neither this script's directory nor its name is the agent's business.
    sys.path[0] = os.getcwd()
    sys.argv = [sys.argv[0]] + arguments[split + 1:]

    alone = options.self_idle_limit is not None
    gate = Gate(options.gate_dir, needs_lease=not alone)
    gate.prepare()
    watch = IdleWatch(gate, options.self_idle_limit, options.power_off) if alone else None
    if not wrap(gate, watch):
        if alone:
            # Nobody could tell whether it holds a task, so nobody could ever end it.
            log("without a sidecar it is not started")
            sys.exit(EXIT_CANNOT_GATE)
        gate.write("ungated", "ungated")
    if watch is not None:
        watch.start()
    runpy.run_module("clearml_agent", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
