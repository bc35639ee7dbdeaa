# SPDX-License-Identifier: Apache-2.0
"""Runs the demo and draws up its account. See tools/demo."""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
SIGNALS = ("metrics", "logs", "spans")
# Counters: each measurement is 1, so a datum's value says how many it stands for. All others carry a SampleCount.
COUNTERS = {"Requests", "ClientErrors", "Throttles", "Faults", "SlowRequests", "TenantRequests"}

# Gauges, and how often each request sets one. OTLP carries a gauge's last value and no count: there it is the requests
# that arrived, by their own counter, which say how often.
GAUGES = {"InFlight": 2}


def wait_for(path, process):
    for _ in range(500):
        if path.exists():
            return path.read_text()
        if process.poll() is not None:
            sys.exit(f"demo: {process.args[0]} ended with {process.returncode}")
        time.sleep(0.02)
    sys.exit(f"demo: {process.args[0]} does not start")


@contextlib.contextmanager
def running(arguments, **options):
    process = subprocess.Popen(arguments, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            sys.exit(f"demo: {arguments[0]} did not end")


def load(port, seconds):
    """Drives the service with wrk; returns requests per second and the latency's p50 and p99 in milliseconds."""
    output = subprocess.run(
        ["wrk", "-t1", "-c32", f"-d{seconds}s", "--latency", "-s", str(HERE / "load.lua"), f"http://127.0.0.1:{port}"],
        check=True, capture_output=True, text=True).stdout
    errors = re.search(r"Socket errors: (.*)", output)
    if errors:
        sys.exit(f"demo: wrk saw socket errors: {errors[1]}")

    def milliseconds(percentile):
        value, unit = re.search(rf"{percentile}%\s+([\d.]+)(us|ms|s)", output).groups()
        return float(value) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]

    return {"rps": float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]), "p50": milliseconds(50), "p99": milliseconds(99)}


@contextlib.contextmanager
def serve(build, work, telemetry, environment):
    """The demo's service, running; yields its port and the file that it leaves its report in."""
    port_file, report = work / f"port-{telemetry}", work / f"report-{telemetry}.json"
    command = [build / "tools/spillway-demo-service", "--telemetry", telemetry, "--port-file", port_file,
               "--report", report]
    with running([str(part) for part in command], env=environment, stderr=subprocess.DEVNULL) as process:
        yield wait_for(port_file, process).strip(), report


def drive(ports, seconds):
    """Loads the service with and the one without telemetry in turn, `seconds` each: on, off, off, on, so that what the
    machine does besides meets both. Returns the means of the rounds."""
    rounds = {"on": [], "off": []}
    for turn in ("on", "off", "off", "on"):
        rounds[turn].append(load(ports[turn], max(1, seconds // 2)))
        time.sleep(1.5)  # What is under way to the receiver arrives before the other one's turn.
    return {turn: {key: sum(r[key] for r in measured) / len(measured) for key in measured[0]}
            for turn, measured in rounds.items()}


def fetch(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


def received(endpoint, otlp):
    """What the receiver holds, in records, and the requests by service."""
    measurements, requests = 0, {"orders": 0, "inventory": 0}
    gauges = set()  # of these services
    for series in fetch(f"{endpoint}/_spillway/metrics")["series"]:
        if series["name"] in COUNTERS:
            measurements += series["sum"]
            if series["name"] == "Requests":
                requests[series["dimensions"]["Service"]] += series["sum"]
        elif series["name"] not in GAUGES or not otlp:
            measurements += series["sample_count"]
        else:
            gauges.add((series["name"], series["dimensions"]["Service"]))
    measurements += sum(requests[service] * GAUGES[name] for name, service in gauges)
    spans = fetch(f"{endpoint}/_spillway/traces?limit=0")["segments"]
    return {"metrics": int(measurements), "logs": fetch(f"{endpoint}/_spillway/logs")["events"],
            "spans": sum(spans.values())}, requests


def account(reports):
    total = {name: {"recorded": 0, "delivered": 0, "dropped": {}, "held": 0, "residue": 0} for name in SIGNALS}
    for service in reports.values():
        for name in SIGNALS:
            part, whole = service["stats"][name], total[name]
            for key in ("recorded", "delivered", "held", "residue"):
                whole[key] += part[key]
            for cause, count in part["dropped"].items():
                whole["dropped"][cause] = whole["dropped"].get(cause, 0) + count
    return total


def main():
    parser = argparse.ArgumentParser(prog="tools/demo")
    parser.add_argument("--build", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--stdout", action="store_true", help="EMF and JSON logs on stdout, no receiver, no network")
    parser.add_argument("--otlp", action="store_true", help="all three signals as OTLP instead of CloudWatch's and X-Ray's calls")
    options = parser.parse_args()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SPILLWAY_"))}
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        if options.stdout:
            return show_stdout(options, work, clean)
        return run(options, work, clean)


def show_stdout(options, work, environment):
    """A few requests, and every line that the service writes."""
    port_file = work / "port"
    command = [str(options.build / "tools/spillway-demo-service"), "--port-file", str(port_file)]
    with running(command, env={**environment, "SPILLWAY_METRIC_INTERVAL": "1s"}, stderr=subprocess.DEVNULL) as service:
        port = wait_for(port_file, service).strip()
        for n in range(1, 6):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/orders/{n}", headers={"X-Tenant-ID": "acme"})
            urllib.request.urlopen(request, timeout=10).read()
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/orders", b"{}"), timeout=10).read()
    return 0


def destination(options, endpoint):
    """The variables that send everything to the receiver."""
    if options.otlp:
        return {"SPILLWAY_OTLP_ENDPOINT": endpoint, "SPILLWAY_METRICS": "otlp", "SPILLWAY_LOGS": "otlp",
                "SPILLWAY_TRACES": "otlp"}
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local-secret", "SPILLWAY_METRICS": "put-metric-data",
            "SPILLWAY_LOGS": "put-log-events", "SPILLWAY_TRACES": "put-trace-segments"}


def run(options, work, environment):
    build, seconds = options.build, options.seconds
    cost = json.loads(subprocess.run([build / "tools/spillway-record-cost"], check=True, capture_output=True,
                                     text=True, env=environment).stdout)
    ports = work / "receiver.json"
    receiver_command = [str(build / "tools/spillway"), "local", "--port", "0", "--udp-port", "0", "--port-file", str(ports)]
    with running(receiver_command, env=environment, stdout=subprocess.DEVNULL) as receiver:
        endpoint = json.loads(wait_for(ports, receiver))["endpoint"]
        print(f"demo: receiver at {endpoint}; {seconds} s of load with telemetry and without, in turns", flush=True)
        telemetry = {**environment, "SPILLWAY_METRIC_INTERVAL": "1s", **destination(options, endpoint)}
        nothing = {**environment, "SPILLWAY_METRICS": "none", "SPILLWAY_LOGS": "none", "SPILLWAY_TRACES": "none"}
        with serve(build, work, "on", telemetry) as (port_on, report), serve(build, work, "off", nothing) as (port_off, _):
            measured = drive({"on": port_on, "off": port_off}, seconds)
        reports = json.loads(report.read_text())
        there, requests = received(endpoint, options.otlp)

    ledger = account(reports)
    failures = []
    print(f"\n{'signal':8} {'recorded':>10} {'delivered':>10} {'dropped':>10} {'held':>6} {'received':>10}   dropped by cause")
    for name in SIGNALS:
        row, dropped = ledger[name], sum(ledger[name]["dropped"].values())
        row["received"] = there[name]
        causes = ", ".join(f"{cause} {count}" for cause, count in sorted(row["dropped"].items())) or "-"
        print(f"{name:8} {row['recorded']:10} {row['delivered']:10} {dropped:10} {row['held']:6} {there[name]:10}   {causes}")
        if row["recorded"] != row["delivered"] + dropped + row["held"] or row["residue"] != 0:
            failures.append(f"{name}: recorded is not delivered + dropped + held")
        if row["delivered"] != there[name]:
            failures.append(f"{name}: delivered {row['delivered']}, but the receiver holds {there[name]}")
        del row["residue"]
    for service, count in requests.items():
        if count != reports[service]["served"]:
            failures.append(f"{service}: served {reports[service]['served']} requests, its metric says {count}")
    print("\none call on the caller's thread, ns (p50 / p99): " + ", ".join(
        f"{name} {cost[name]['p50']} / {cost[name]['p99']}" for name in ("counter", "histogram", "log", "span")))
    on, off = measured["on"], measured["off"]
    print("requests per second: " + ", ".join(
        f"{one['rps']:.0f} {name} (p50 {one['p50']:.2f} ms, p99 {one['p99']:.2f} ms)"
        for name, one in (("with telemetry", on), ("without", off))) +
        f"; services, receiver and wrk share {os.cpu_count()} cores")
    if options.json:
        options.json.write_text(json.dumps({"signals": ledger, "record_ns": cost, "http": {
            "rps_on": on["rps"], "rps_off": off["rps"]}, "balanced": not failures}, indent=2) + "\n")
    for failure in failures:
        print(f"demo: {failure}", file=sys.stderr)
    print("demo: every record is accounted for" if not failures else "demo: the account does not balance")
    return 1 if failures else 0


sys.exit(main())
