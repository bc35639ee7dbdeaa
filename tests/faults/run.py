#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The engine on a kernel that goes wrong: a table of faults, and where every record was at the end.

Each row is a process of its own, in namespaces of its own where it needs them. It runs faults_probe (probe.cpp) against
receiver.py, and compares three books: what the probe's threads have counted, what the engine's ledger says, and what has
come. Exit status 1 if a record is unaccounted for, if a shutdown took longer than its deadline and OVERRUN_MS_MAX (and
what a thread that only sleeps was late in the meantime, which is the machine's), or if a process crashed.

    tests/faults/run.py --build build/release [--kills N] [--short] [--only TEXT]
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

from receiver import Receiver, SilentListener

OVERRUN_MS_MAX = 50
# A row that fails while its process was kept from running for longer than this during a shutdown of 500 ms says more of
# the machine than of the engine: it is run again, and says so.
STARVED_MS_MAX = 100
# Dead processes whose rings nobody has had the time to send; crash_dir has room for 256, and those after them record in
# memory only, which a kill takes.
KILLS_IN_A_ROW_MAX = 150
ROW_TRIES_MAX = 3
THREADS = 2
SIGNALS = ("logs", "spans", "metrics")
ROW_SECONDS_MAX = 120  # Beside a kill each second.
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


class Probe:
    """One process of the service."""

    def __init__(self, row, environment, rate, held_max, preload=None):
        self.run = len(row.probes)
        self.books = row.folder / f"books-{self.run}"
        self.deadline_ms = None
        self.answer = None  # To shutdown.
        self.exit_status = None
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SPILLWAY_", "OTEL_"))}
        variables |= row.environment() | environment
        if preload:
            variables["LD_PRELOAD"] = str(preload)
        self.stderr = (row.folder / f"stderr-{self.run}").open("w+")
        self.process = subprocess.Popen(
            [row.build / "tests/faults_probe", *map(str, (self.run, THREADS, rate, held_max)), self.books],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, text=True, env=variables)

    def failures(self):
        """Requests that failed or were throttled."""
        delivery = self.answer["stats"]["delivery"]
        return delivery["failures"] + delivery["throttles"]

    def has_said(self, text):
        return any(text in line for line in self.answer["diagnostics"])

    def dropped(self, cause):
        return sum(self.answer["stats"][name]["dropped"].get(cause, 0) for name in SIGNALS)

    def ask(self, command):
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self.process.wait(10)
            self.stderr.seek(0)
            raise RuntimeError(f"the probe ended with status {status}: {self.stderr.read()[-2000:]}")
        return json.loads(line)

    def shutdown(self, deadline_ms):
        self.deadline_ms = deadline_ms
        self.answer = self.ask(f"shutdown {deadline_ms}")
        self.exit_status = self.process.wait(30)
        if self.exit_status != 0:
            raise RuntimeError(f"the probe ended with status {self.exit_status} after its shutdown")
        self.close()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        status = self.process.wait()
        if status != -signal.SIGKILL:
            self.stderr.seek(0)
            raise RuntimeError(f"the probe had ended with status {status}: {self.stderr.read()[-2000:]}")
        self.close()

    def close(self):
        for file in (self.process.stdin, self.process.stdout, self.stderr):
            with contextlib.suppress(OSError):
                file.close()

    def recorded(self):
        """What has come back from its call, by signal and thread."""
        counts = struct.iter_unpack("4Q", self.books.read_bytes()) if self.books.exists() else ()
        columns = list(zip(*counts)) or [(0,) * THREADS] * 3
        return dict(zip(SIGNALS, columns))


class Row:
    """What a fault's function works with, and the sum of it."""

    def __init__(self, options):
        self.build = pathlib.Path(options.build).resolve()
        self.kills = options.kills
        self.folder = pathlib.Path(options.folder).resolve()
        self.receiver = Receiver()
        self.probes = []
        self.spool = self.folder / "spool"
        self.note = ""
        self.not_struck = []

    def must(self, struck, what):
        """What shows that the fault was there: without it a row says nothing."""
        if not struck:
            self.not_struck.append(what)

    def environment(self):
        return {
            "AWS_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.receiver.port}",
            "AWS_ACCESS_KEY_ID": "AKIDFAULTS",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "SPILLWAY_SERVICE": "faults",
            "SPILLWAY_METRICS": "put-metric-data",
            "SPILLWAY_LOGS": "put-log-events",
            "SPILLWAY_TRACES": "put-trace-segments",
            "SPILLWAY_TRACE_SAMPLE_RATE": "1",
            "SPILLWAY_LOG_GROUP": "/faults",
            "SPILLWAY_LOG_STREAM": "all",
            "SPILLWAY_METRIC_INTERVAL": "1s",
            "SPILLWAY_LOG_INTERVAL": "100ms",
            "SPILLWAY_TRACE_INTERVAL": "100ms",
            "SPILLWAY_REQUEST_TIMEOUT": "1s",
            "SPILLWAY_RING_BYTES": str(4 << 20),
        }

    def start(self, environment=None, rate=5000, held_max=10_000_000, preload=None):
        probe = Probe(self, environment or {}, rate, held_max, preload)
        self.probes.append(probe)
        return probe

    def with_spool(self):
        return {"SPILLWAY_SPOOL_DIR": str(self.spool)}

    def outage(self, begin, end, environment=None, preload=None, after=None):
        """Healthy, then the fault up to the process's end, then the next process without it."""
        environment = self.with_spool() | (environment or {})
        first = self.start(environment, preload=preload)
        time.sleep(0.5)
        begin()
        time.sleep(2)
        first.shutdown(500)
        end()
        self.deliver(environment | (after or {}))
        return first

    def deliver(self, environment):
        """A process that sends what is left, and records a little of its own."""
        last = self.start(environment)
        time.sleep(0.3)
        last.ask("stop")
        last.ask("flush 20000")
        last.shutdown(2000)

    def result(self):
        """The books against each other; see the module."""
        books = self.receiver.books
        came = {"logs": books.logs, "spans": books.spans}
        total = collections.Counter()
        dropped = collections.Counter()
        wrong = [f"the fault did not strike: {what}" for what in self.not_struck]
        ended = [probe for probe in self.probes if probe.answer]
        is_killed = len(ended) != len(self.probes)
        for name in SIGNALS:
            ledgers = [probe.answer["stats"][name] for probe in ended]
            if not any("destination" in ledger for ledger in ledgers):
                continue  # A signal that this row has turned off.
            recorded = sum(sum(probe.recorded()[name]) for probe in self.probes)
            causes = collections.Counter()
            for ledger in ledgers:
                causes.update(ledger["dropped"])
            held = ledgers[-1]["held"]
            explained = causes.total() + held
            off = []  # Each is a number of records that the books do not explain.
            if name in came:
                arrived = came[name]
                promised = {(probe.run, t, n) for probe in self.probes
                            for t, count in enumerate(probe.recorded()[name]) for n in range(count)}
                # A call that the kill has met may have recorded and not counted it.
                cut = {(probe.run, t, count) for probe in self.probes if not probe.answer
                       for t, count in enumerate(probe.recorded()[name])}
                off.append(("lost", max(0, len(promised - arrived.keys()) - explained)))
                off.append(("invented", len(arrived.keys() - promised - cut)))
                delivered = len(promised & arrived.keys())
                total["duplicates"] += arrived.total() - len(arrived)
            else:
                delivered = books.measurements
                off.append(("lost", max(0, recorded - delivered - explained)))
                uncertain = sum(ledger.get("delivery", {}).get("uncertain_records", 0) for ledger in ledgers)
                off.append(("invented", max(0, delivered - recorded - uncertain)))
                total["duplicates"] += max(0, delivered - recorded)
            if not is_killed:
                for probe, ledger in zip(ended, ledgers):
                    mine = ledger["recorded"] - ledger.get("recovered", 0) - sum(probe.recorded()[name])
                    off.append((f"counted otherwise by process {probe.run}", abs(mine)))
                    off.append((f"residue of process {probe.run}", abs(ledger["residue"])))
                delivered = sum(ledger["delivered"] for ledger in ledgers)
                off.append(("between processes", abs(recorded - delivered - explained)))
                total["recovered"] += sum(ledger.get("recovered", 0) for ledger in ledgers)
            total["recorded"] += recorded
            total["delivered"] += delivered
            total["held"] += held
            total["residue"] += sum(count for _, count in off)
            dropped += causes
            wrong += [f"{name}: {what} {count}" for what, count in off if count]
        if books.unreadable:
            wrong.append(f"{books.unreadable} requests were not readable")
        overruns = [(max(0.0, probe.answer["shutdown_ms"] - probe.deadline_ms), probe.answer["starved_ms"])
                    for probe in ended]
        for overrun, starved in overruns:
            if overrun > OVERRUN_MS_MAX + starved:
                wrong.append(f"shutdown overran by {overrun:.0f} ms, with a machine that was late by {starved:.0f} ms")
        if is_killed:
            total["recovered"] = books.recovered
        return {"recorded": total["recorded"], "delivered": total["delivered"], "dropped": dict(dropped),
                "held": total["held"], "recovered": total["recovered"], "duplicates": total["duplicates"],
                "residue": total["residue"], "overrun_ms": max(overrun for overrun, _ in overruns),
                "starved_ms": max(starved for _, starved in overruns), "note": self.note,
                "wrong": wrong, "processes": [probe.answer for probe in ended]}


# ---- The rows ----

ROWS = []


@dataclasses.dataclass
class Fault:
    name: str
    run: callable
    needs: tuple
    is_short: bool


def fault(name, *needs, short=False):
    """Registers a row. `needs`: names of NEEDS."""
    def register(function):
        ROWS.append(Fault(name, function, needs, short))
        return function
    return register


@fault("none", short=True)
def none(row):
    first = row.outage(lambda: None, lambda: None)
    row.must(first.failures() == 0, "requests failed where nothing was wrong")


def kill_again_and_again(row, is_away):
    """A chain of processes, each of which has to send what the ones before it left behind while it records, and is killed
    itself."""
    environment = row.with_spool() | {
        "SPILLWAY_CRASH_DIR": str(row.folder / "crash"), "SPILLWAY_METRICS": "none", "SPILLWAY_REQUEST_TIMEOUT": "300ms"}
    chance = random.Random(20261121)
    listens = True
    for number in range(row.kills):
        wants = not is_away or chance.random() < 0.5
        if wants != listens:
            row.receiver.listen() if wants else row.receiver.refuse()
            listens = wants
        # Not faster than it is delivered: a ring that is half full of what waits keeps less of it.
        probe = row.start(environment, rate=20_000, held_max=4000)
        began = time.monotonic()
        while not sum(probe.recorded()["logs"]) and time.monotonic() < began + 10:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.1)
        probe.kill()
        if number % KILLS_IN_A_ROW_MAX == KILLS_IN_A_ROW_MAX - 1:
            if not listens:
                row.receiver.listen()
                listens = True
            row.deliver(environment)
    if not listens:
        row.receiver.listen()
    row.deliver(environment)
    row.note = f"{row.kills} kills"
    row.must(row.receiver.books.recovered > 0, "nothing was left by the killed")


@fault("kill -9", short=True)
def kill(row):
    kill_again_and_again(row, is_away=False)


@fault("kill -9, receiver away half the time", short=True)
def kill_in_outage(row):
    kill_again_and_again(row, is_away=True)


def must_fail(row, first):
    row.must(first.failures() > 0, "no request failed")


@fault("connections refused", short=True)
def refused(row):
    must_fail(row, row.outage(row.receiver.refuse, row.receiver.listen))


@fault("TCP black hole: full backlog", short=True)
def full_backlog(row):
    silent = SilentListener()
    must_fail(row, row.outage(lambda: None, silent.close, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.port}"},
                              after={"AWS_ENDPOINT_URL": f"http://127.0.0.1:{row.receiver.port}"}))


@fault("TCP black hole: nftables drop", "namespaces", "nftables")
def dropped_packets(row):
    def begin():
        command("nft", f"add table inet faults; add chain inet faults in {{ type filter hook input priority 0; }}; "
                f"add rule inet faults in tcp dport {row.receiver.port} drop")
    must_fail(row, row.outage(begin, lambda: command("nft", "delete table inet faults")))


@fault("DNS black hole", "namespaces")
def dns(row):
    # A name server that hears and says nothing.
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 53))
    hosts, servers = row.folder / "hosts", row.folder / "resolv.conf"
    hosts.write_text("127.0.0.1 localhost\n")
    servers.write_text("nameserver 127.0.0.1\n")
    command("mount", "--bind", hosts, "/etc/hosts")
    command("mount", "--bind", servers, "/etc/resolv.conf")
    name = {"AWS_ENDPOINT_URL": f"http://receiver.test:{row.receiver.port}"}
    must_fail(row, row.outage(lambda: None, lambda: hosts.write_text("127.0.0.1 localhost receiver.test\n"), name))


@fault("slow loris", short=True)
def slow(row):
    must_fail(row, row.outage(lambda: setattr(row.receiver, "fault", "slow"),
                              lambda: setattr(row.receiver, "fault", "none")))


@fault("resets in the middle of replies", short=True)
def resets(row):
    must_fail(row, row.outage(lambda: setattr(row.receiver, "fault", "reset"),
                              lambda: setattr(row.receiver, "fault", "none")))


@fault("throttled", short=True)
def throttled(row):
    must_fail(row, row.outage(lambda: setattr(row.receiver, "fault", "busy"),
                              lambda: setattr(row.receiver, "fault", "none")))


def small_disk(folder, options):
    folder.mkdir(mode=0o700)
    command("mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "none", folder)


@fault("ENOSPC in the spool, then space", "namespaces")
def full_spool(row):
    small_disk(row.spool, "size=256k")
    first = row.start(row.with_spool())
    row.receiver.refuse()
    time.sleep(3)
    command("mount", "-o", "remount,size=64m", row.spool)
    time.sleep(1.5)
    first.shutdown(1000)
    row.receiver.listen()
    row.deliver(row.with_spool())
    must_be_full(row, first)


def must_be_full(row, first):
    row.must(first.has_said("No space left"), "the spool has not said that there is no space")


@fault("ENOSPC in the spool up to the end", "namespaces")
def full_spool_to_the_end(row):
    small_disk(row.spool, "size=256k")
    must_be_full(row, row.outage(row.receiver.refuse, row.receiver.listen))


@fault("no inodes in the spool", "namespaces")
def no_inodes(row):
    small_disk(row.spool, "size=64m,nr_inodes=6")
    must_be_full(row, row.outage(row.receiver.refuse, row.receiver.listen))


def to_files(folder):
    return {"SPILLWAY_LOGS": "file", "SPILLWAY_LOGS_FILE": str(folder / "logs"), "SPILLWAY_METRICS": "emf:file",
            "SPILLWAY_METRICS_FILE": str(folder / "metrics"), "SPILLWAY_TRACES": "none"}


def read_files(folder, books):
    """Enters what stands in the files; returns how many lines are no whole records."""
    torn = 0
    for name, enter in (("logs", books.enter_log), ("metrics", books.enter_emf)):
        for line in (folder / name).read_text(errors="replace").splitlines():
            try:
                enter(json.loads(line))
            except (ValueError, KeyError):
                torn += 1
    return torn


@fault("ENOSPC under log and EMF files, then space", "namespaces")
def full_files(row):
    small_disk(row.folder / "out", "size=256k")
    first = row.start(to_files(row.folder / "out"))
    time.sleep(3)
    command("mount", "-o", "remount,size=64m", row.folder / "out")
    time.sleep(1)
    first.ask("stop")
    first.ask("flush 5000")
    first.shutdown(1000)
    row.note = f"{read_files(row.folder / 'out', row.receiver.books)} torn lines"
    row.must(first.has_said("No space left"), "no file has said that there is no space")


@fault("EIO in the spool (LD_PRELOAD)", short=True)
def broken_spool(row):
    marker = row.folder / "broken"

    def begin():
        marker.touch()
        row.receiver.refuse()
    row.outage(begin, row.receiver.listen, {"FAULTS_EIO_WHILE": str(marker), "FAULTS_EIO_BELOW": str(row.spool)},
               preload=row.build / "tests/libfaults_broken_disk.so")
    must_be_broken(row, marker)


def must_be_broken(row, marker):
    """broken_disk.cpp writes a byte for each call that it has failed."""
    struck = marker.with_suffix(".struck")
    calls = struck.stat().st_size if struck.exists() else 0
    row.must(calls > 0, "no call to the disk was answered EIO")
    row.note = ", ".join(filter(None, [row.note, f"{calls} calls answered EIO"]))


@fault("EIO under log and EMF files (LD_PRELOAD)", short=True)
def broken_files(row):
    out, marker = row.folder / "out", row.folder / "broken"
    out.mkdir()
    first = row.start(to_files(out) | {"FAULTS_EIO_WHILE": str(marker), "FAULTS_EIO_BELOW": str(out)},
                      preload=row.build / "tests/libfaults_broken_disk.so")
    time.sleep(1)
    marker.touch()
    time.sleep(1)
    marker.unlink()
    time.sleep(0.5)
    first.ask("stop")
    first.ask("flush 5000")
    first.shutdown(1000)
    row.note = f"{read_files(out, row.receiver.books)} torn lines"
    must_be_broken(row, marker)


@fault("clock +30 days, -30 days, right again", "faketime")
def clock(row):
    jump = row.folder / "clock"

    def set_clock(offset):
        (row.folder / "clock.new").write_text(offset + "\n")
        (row.folder / "clock.new").rename(jump)
    set_clock("+0d")
    first = row.start({"FAKETIME_TIMESTAMP_FILE": str(jump), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                       "DONT_FAKE_MONOTONIC": "1"}, preload=FAKETIME)
    for offset in ("+0d", "+30d", "-30d", "+0d"):
        set_clock(offset)
        time.sleep(1.5)
    first.ask("stop")
    first.ask("flush 5000")
    first.shutdown(1000)
    row.must(first.dropped("expired") > 0, "no record was of a time that CloudWatch does not take")


def flood(row, limit, environment):
    """Nothing is delivered and much is recorded."""
    row.receiver.refuse()
    first = row.start({"SPILLWAY_RING_BYTES": str(1 << 20)} | environment, rate=50_000)
    limit(first.process.pid)
    time.sleep(4)
    first.shutdown(500)
    row.note = f"{first.answer['resident_peak_kb'] >> 10} MB resident at most"
    row.receiver.listen()
    row.deliver({})
    return first


@fault("memory limit (RLIMIT_AS), queue larger than it")
def address_space(row):
    def limit(pid):
        time.sleep(0.3)
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + (48 << 20)
        resource.prlimit(pid, resource.RLIMIT_AS, (most, most))
    first = flood(row, limit, {"SPILLWAY_QUEUE_BYTES_MAX": str(1 << 30)})
    row.must(first.dropped("no_memory") > 0, "memory did not run out")


@fault("memory limit (cgroup of 64 MB), queue of 16 MB", "cgroup")
def cgroup(row):
    with memory_cgroup(64 << 20) as limit:
        first = flood(row, limit, {"SPILLWAY_QUEUE_BYTES_MAX": str(16 << 20)})
    row.must(first.dropped("queue_full") > 0, "the queue was not full")


# ---- What rows need, and whether it is possible here ----


def command(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")


def in_namespaces():
    """A prefix that gives a command a network and mounts of its own."""
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *as_root, "--net", "--mount", "sh", "-c", 'ip link set lo up && exec "$@"', "faults"]


def why_not(words):
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["refused"])[-1]


CGROUPS = (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"))


def cgroup_of(folder, pid):
    """The group that the row of this process makes."""
    return pathlib.Path(folder) / f"spillway-faults-{pid}"


@contextlib.contextmanager
def memory_cgroup(limit_bytes):
    """Yields a function that puts a process into a group of so much memory."""
    for folder, name in CGROUPS:
        group = cgroup_of(folder, os.getpid())
        with contextlib.suppress(OSError):
            group.mkdir()
            if (group / name).exists():
                break
            group.rmdir()
    else:
        raise RuntimeError("no memory cgroup can be made below /sys/fs/cgroup")
    try:
        (group / name).write_text(str(limit_bytes))
        yield lambda pid: (group / "cgroup.procs").write_text(str(pid))
    finally:
        group.rmdir()


def why_no_cgroup():
    try:
        with memory_cgroup(1 << 30):
            return None
    except (OSError, RuntimeError) as error:
        return str(error)


NEEDS = {
    "namespaces": lambda: why_not([*in_namespaces(), "mount", "-t", "tmpfs", "none", "/mnt"]),
    "nftables": lambda: why_not([*in_namespaces(), "nft", "add table inet faults"]),
    "faketime": lambda: None if os.path.exists(FAKETIME) else f"{FAKETIME} is missing",
    "cgroup": why_no_cgroup,
}


# ---- The table ----

COLUMNS = ("recorded", "delivered", "dropped", "held", "recovered", "duplicates", "residue", "overrun_ms")


def run_row(name, options):
    """In this process; prints the result as JSON."""
    row = Row(options)
    try:
        next(row_fault for row_fault in ROWS if row_fault.name == name).run(row)
        result = row.result()
    except Exception as error:
        result = {"wrong": [f"{type(error).__name__}: {error}"], "trace": traceback.format_exc()}
    finally:
        for probe in row.probes:
            if probe.process.poll() is None:
                probe.process.kill()
                probe.process.wait()
    print(json.dumps(result))
    sys.stdout.flush()


def start_row(row_fault, options):
    """In a session of its own: a row that hangs is ended with all that it has started. Its mounts end with it."""
    prefix = in_namespaces() if "namespaces" in row_fault.needs else []
    folder = tempfile.mkdtemp(prefix="spillway-faults-")
    row = subprocess.Popen([*prefix, sys.executable, __file__, *sys.argv[1:], "--row", row_fault.name, "--folder", folder],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said, complained = row.communicate(timeout=ROW_SECONDS_MAX + 11 * options.kills)
        return json.loads(said)
    except subprocess.TimeoutExpired:
        return {"wrong": ["did not end in time"]}
    except ValueError:
        return {"wrong": [f"said nothing: {complained[-2000:]}"]}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(row.pid, signal.SIGKILL)
        row.communicate()
        for parent, _ in CGROUPS:
            with contextlib.suppress(OSError):
                cgroup_of(parent, row.pid).rmdir()
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build/release", help="folder with the built programs")
    parser.add_argument("--kills", type=int, default=500, help="processes killed in each of the two rows of kill -9")
    parser.add_argument("--short", action="store_true", help="only the rows that need no privilege")
    parser.add_argument("--only", default="", help="only the rows whose name contains this")
    parser.add_argument("--json", type=pathlib.Path, help="write the rows to this file too")
    parser.add_argument("--keep", action="store_true", help="leave the folders of the rows where they are")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        run_row(options.row, options)
        return 0
    impossible = {name: check() for name, check in NEEDS.items()}
    rows = []
    print(f"{'fault':50}" + "".join(f"{re.sub('_', ' ', name):>12}" for name in COLUMNS))
    for row_fault in ROWS:
        if options.only not in row_fault.name or (options.short and not row_fault.is_short):
            continue
        reasons = [impossible[name] for name in row_fault.needs if impossible[name]]
        if reasons:
            print(f"{row_fault.name:50}  not possible here: {reasons[0]}")
            rows.append({"fault": row_fault.name, "not_possible": reasons[0]})
            continue
        for tries_left in reversed(range(ROW_TRIES_MAX)):
            result = start_row(row_fault, options)
            starved_ms = result.get("starved_ms", 0)
            if not result["wrong"] or starved_ms <= STARVED_MS_MAX or tries_left == 0:
                break
            print(f"{row_fault.name:50}  again, the machine was late by {starved_ms:.0f} ms: {'; '.join(result['wrong'])}")
        rows.append({"fault": row_fault.name} | result)
        if "recorded" in result:
            shown = result | {"dropped": sum(result["dropped"].values()), "overrun_ms": round(result["overrun_ms"])}
            causes = [f"{count} {cause}" for cause, count in result["dropped"].items()]
            remarks = ", ".join([*causes, *([result["note"]] if result["note"] else [])])
            print(f"{row_fault.name:50}" + "".join(f"{shown[name]:>12}" for name in COLUMNS) + (f"  {remarks}" if remarks else ""))
        for text in result["wrong"]:
            print(f"{row_fault.name:50}  WRONG: {text}")
        sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return 1 if any(row.get("wrong") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
