# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmark programs and prints one table per question. See tools/bench."""

import argparse
import contextlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import instructions

QUESTIONS = {
    "record": {
        "counter_add": "What does adding to a counter cost?",
        "gauge_set": "What does setting a gauge cost?",
        "histogram_record": "What does recording into a histogram cost?",
        "counter_by_context": "What does a counter cost whose series the request's tenant chooses?",
        "log_disabled": "What does a log below the level cost?",
        "log_3_fields": "What does a log with an int, a double and nine characters cost?",
        "log_3_fields_coarse": "What does it cost with the time of the flusher's last round?",
        "span_3_annotations": "What does a span with three annotations cost, begun and ended?",
        "segment_3_annotations": "As a segment of its own, on more threads?",
        "span_unsampled": "What does it cost in a trace that is not sampled?",
        "sample_exact": "What does a sample with its time cost?",
        "sample_coarse": "What does it cost with the time of the flusher's last round?",
        "counter_series": "How does a counter's cost grow with the number of series, used in any order?",
        "histogram_series": "And a histogram's?",
        "log_fields": "How does a log's cost grow with its integer fields?",
        "log_string": "And with the length of a string?",
        "log_ring": "What does a log cost with the ring near empty, near full, and dropping?",
        "first_record": "What does the first record of a thread cost?",
        "single_call_counter_add": "What does a single call cost, the clock's step taken in: a counter?",
        "single_call_histogram_record": "A histogram?",
        "single_call_log_3_fields": "A log?",
        "single_call_span_3_annotations": "A span?",
        "after_idle_second": "What does the first call after an idle second cost, one call timed?",
        "thread_memory": "What memory does each of many idle threads hold that recorded once?",
        "sustained_measurements": "How many measurements a second, two threads flat out, into cells?",
        "sustained_samples": "How many timed samples, through rings (a full one folds into cells)?",
        "sustained_logs": "How many logs?",
        "sustained_logs_of_one": "Of one thread?",
        "sustained_spans": "How many spans?",
    },
    "encode": {
        "emf_counter": "How fast is an EMF document of one counter made?",
        "emf_1000_counters": "Of a thousand series in turn?",
        "emf_10_counters": "One of ten counters of a dimension set, by counter?",
        "emf_wide_event": "One of a wide event: a metric, two dimensions, a property?",
        "emf_histogram": "One of a histogram with 20 different values?",
        "put_metric_data_counter": "How fast is a PutMetricData datum of a counter made, in JSON?",
        "put_metric_data_counter_cbor": "In CBOR?",
        "put_metric_data_histogram": "One of a histogram with 20 values, in JSON?",
        "put_log_events_event": "How fast is the JSON line of a log with 3 fields made?",
        "put_log_events_event_context": "With tenant, user, request, trace and span?",
        "xray_2_spans": "How fast are two spans of a segment made into their X-Ray document?",
        "otlp_counter": "How fast is a counter's OTLP message made?",
        "otlp_histogram": "A histogram's, with 20 values?",
        "otlp_log": "A log's, with context and 3 fields?",
        "otlp_2_spans": "Spans'?",
        "put_log_events": "How fast do log events become the body of PutLogEvents?",
        "put_log_events_signed": "The same with its signature?",
        "put_log_events_gzip": "The same compressed?",
        "put_log_events_gzip_signed": "The same compressed and signed?",
        "emf_request": "How fast do EMF documents?",
        "emf_request_signed": "The same with its signature?",
        "emf_request_gzip": "The same compressed?",
        "emf_request_gzip_signed": "The same compressed and signed?",
        "put_metric_data": "How fast do datums become the body of PutMetricData, in JSON?",
        "put_metric_data_signed": "The same with its signature?",
        "put_metric_data_gzip": "The same compressed?",
        "put_metric_data_gzip_signed": "The same compressed and signed?",
        "put_metric_data_cbor": "In CBOR?",
        "put_metric_data_cbor_signed": "The same with its signature?",
        "put_metric_data_cbor_gzip": "The same compressed?",
        "put_metric_data_cbor_gzip_signed": "The same compressed and signed?",
        "xray_request": "How fast do documents of two spans become the body of PutTraceSegments, by span?",
        "xray_request_signed": "The same with its signature?",
        "xray_request_gzip": "The same compressed?",
        "xray_request_gzip_signed": "The same compressed and signed?",
        "otlp_metric_request": "How fast do metrics' messages become an OTLP request?",
        "otlp_metric_request_signed": "The same with its signature?",
        "otlp_metric_request_gzip": "The same compressed?",
        "otlp_metric_request_gzip_signed": "The same compressed and signed?",
        "otlp_log_request": "Logs'?",
        "otlp_log_request_signed": "The same with its signature?",
        "otlp_log_request_gzip": "The same compressed?",
        "otlp_log_request_gzip_signed": "The same compressed and signed?",
        "otlp_span_request": "Spans'?",
        "otlp_span_request_signed": "The same with its signature?",
        "otlp_span_request_gzip": "The same compressed?",
        "otlp_span_request_gzip_signed": "The same compressed and signed?",
        "aggregate_measurements": "How many measurements a second go from add() and record() into closed intervals, on one core?",
        "aggregate_samples": "How many timed samples a second does one core take from a ring and deliver?",
        "emf_wide_events_from_ring": "How many wide events a second go from a ring into documents?",
        "aggregate_wide_events": "How many from a ring into series, for PutMetricData?",
        "aggregate_1000_series": "How many series a second, each with 10 measurements of an interval?",
        "put_log_events_from_ring": "How many logs a second does one core take from a ring and deliver?",
        "xray_from_ring": "How many spans a second, in traces of two?",
        "aggregate_percentile_error": "How far is p1 to p99.9 of a million real latencies from the true one, at most?",
    },
    "deliver": {
        "deliver_logs": "How many logs a second arrive at a receiver on this machine, sent by PutLogEvents?",
        "deliver_series": "How many series, by PutMetricData?",
        "deliver_spans": "How many spans, by PutTraceSegments?",
        "log_beside_destination": "What does a log cost the caller, whose destination is well, slow, dead?",
    },
    "spool": {
        "spool_in": "How many records a second go onto the disk, each payload of 1 MB confirmed by it?",
        "spool_open": "How long does an engine take to open a backlog of 1 GB that another one left?",
        "spool_out": "How many records a second come back from the disk, and are deleted there?",
        "spool_and_back": "How many go through the spool, both ways one after the other?",
    },
    "middleware": {
        "observability": "What do request id, access log, metrics and segment add to a request? (floor: the request without)",
        "health": "What does a health answer cost, and the step to every other request? (floor: a chain without)",
        "rate_limit_local": "What does a decision within one process cost, alone and as a step? (floor: the key's hash)",
        "rate_limit_leased": "And one by permits leased from a table a millisecond away?",
        "circuit_breaker": "What do a closed breaker's decision and the record of a good call cost?",
        "bulkhead": "What do taking a permit and giving it back cost?",
        "load_shedding": "What do admitting a request and telling its latency cost, alone and as a step?",
        "signing": "What does signing a request cost, and verifying it? (floor: a chain without)",
        "chain": "What do all steps together add to a request? (floor: the request without)",
        "chain_throughput": "What does a Beast server serve with all steps, and without? (threads: those that serve; mean: its processor time a request)",
    },
}


def rows_of(program, effort, *arguments):
    """`effort` is a list of options: none, --quick or --smoke."""
    command = [program, *arguments, *effort]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


@contextlib.contextmanager
def tracing():
    """A session of LTTng that keeps the last events in memory, where its tools are installed: tracepoints record."""
    if not shutil.which("lttng-sessiond"):
        print("LTTng's session daemon is not installed: its tracepoints are off", file=sys.stderr)
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        def lttng(*arguments):
            subprocess.run(["lttng", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        ready = threading.Event()
        signal.signal(signal.SIGUSR1, lambda *_: ready.set())
        daemon = subprocess.Popen(["lttng-sessiond", "--no-kernel", "--sig-parent"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(100):  # The signal, not the time, ends the wait where all is well.
                if ready.is_set():
                    break
                time.sleep(0.1)
            lttng("create", "spillway-bench", "--snapshot", "--output", folder)
            lttng("enable-event", "--userspace", "spillway_bench:order")
            lttng("start")
            yield
            lttng("destroy", "spillway-bench")
        finally:
            daemon.terminate()
            daemon.wait()


def run_record(build, effort):
    with tracing() if effort != ["--smoke"] else contextlib.nullcontext():
        rows = rows_of(build / "bench/record_percentiles", effort)
    rows += rows_of(build / "bench/record_questions", effort)
    counted = instructions.count(build)
    for row in rows:
        if row["subject"] == "spillway" and row["threads"] == 1:
            row["instructions"] = counted.get(row["case"])
    return rows


def run_encode(build, effort):
    return rows_of(build / "bench/encode", effort)


@contextlib.contextmanager
def receiver(build, *options):
    """The address of a `spillway local` that runs meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        ports = pathlib.Path(folder, "ports")
        process = subprocess.Popen([build / "tools/spillway", "local", "--port", "0", "--udp-port", "0",
                                    "--keep-messages", "0", "--keep-documents", "0", "--port-file", ports, *options],
                                   stdout=subprocess.DEVNULL)
        try:
            while not ports.exists():
                if process.poll() is not None:
                    sys.exit("spillway local did not start")
                time.sleep(0.01)
            yield json.loads(ports.read_text())["endpoint"]
        finally:
            process.terminate()
            process.wait()


def run_deliver(build, effort):
    with receiver(build) as healthy, receiver(build, "--fault", "delay:ms=1000") as slow:
        return rows_of(build / "bench/deliver", effort, healthy, slow)


def run_spool(build, effort):
    with tempfile.TemporaryDirectory(dir=build) as folder:
        return rows_of(build / "bench/spool", effort, pathlib.Path(folder, "spool"))


def run_middleware(build, effort):
    rows = rows_of(build / "bench/middleware", effort)
    counted = {} if effort == ["--smoke"] else instructions.count(build, "middleware")
    for row in rows:
        if row["threads"] == 1:
            row["instructions"] = counted.get(f"{row['case']}/{row['subject']}")
    return rows


SUITES = {"record": run_record, "encode": run_encode, "deliver": run_deliver, "spool": run_spool, "middleware": run_middleware}


def means(build, effort):
    """Google Benchmark's means, as (name, threads, ns)."""
    command = [build / "bench/record_bench", "--benchmark_format=json",
               f"--benchmark_min_time={0.05 if effort else 0.5}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [(run["name"].split("/")[0], run["threads"], run["real_time"] * run["threads"])
            for run in json.loads(output)["benchmarks"]]


def short(number):
    """A figure with about three digits: 1.85, 45.2, 843, 6.6 M."""
    if number is None:
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if number >= size:
            scale = 1e3 if unit == "k" else size
            return f"{number / scale:.3g} {unit}"
    return f"{number:.2f}" if number < 10 else f"{number:.1f}" if number < 100 else f"{number:.0f}"


def table(rows):
    """The rows of one case as aligned lines; columns that no row fills are left out."""
    floors = {row["threads"]: row["ns_p50"] for row in rows if row["subject"] == "floor"}

    def over_floor(row):
        floor = floors.get(row["threads"])
        return f"{row['ns_p50'] / floor:.2f}" if floor and row["ns_p50"] and row["subject"] != "floor" else ""

    columns = {
        "subject": lambda row: row["subject"],
        "threads": lambda row: str(row["threads"]),
        "p50 ns": lambda row: short(row["ns_p50"]),
        "p99 ns": lambda row: short(row["ns_p99"]),
        "p99.9 ns": lambda row: short(row["ns_p999"]),
        "mean ns": lambda row: short(row["ns_mean"]),
        "over floor": over_floor,
        "instructions": lambda row: short(row["instructions"]),
        "a second": lambda row: short(row["per_second"]),
        "bytes a second": lambda row: short(row.get("bytes_per_second")),
        "bytes": lambda row: short(row.get("bytes")),
        "error %": lambda row: short(row.get("error_percent")),
    }
    cells = [[name, *map(show, rows)] for name, show in columns.items()]
    cells = [column for column in cells if any(column[1:])]
    widths = [max(map(len, column)) for column in cells]
    return ["  " + "  ".join(text.ljust(width) if i == 0 else text.rjust(width)
                             for i, (text, width) in enumerate(zip(line, widths)))
            for line in zip(*cells)]


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="tools/bench")
    parser.add_argument("--build", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("suite", nargs="?", choices=[*SUITES, "all"], default="all")
    parser.add_argument("--quick", action="store_const", const=["--quick"], default=[], dest="effort",
                        help="a fifth of everything")
    parser.add_argument("--smoke", action="store_const", const=["--smoke"], dest="effort", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="the rows, as a JSON array")
    parser.add_argument("--plot", type=pathlib.Path, metavar="DIR", help="pictures of the rows, as PNG")
    options = parser.parse_args(arguments)

    rows = []
    for suite in SUITES if options.suite == "all" else [options.suite]:
        found = SUITES[suite](options.build, options.effort)
        rows += found
        for case in dict.fromkeys([*QUESTIONS[suite], *(row["case"] for row in found)]):
            of_case = [row for row in found if row["case"] == case]
            if of_case:
                print(f"\n{QUESTIONS[suite].get(case, case)}  ({suite} {case})", *table(of_case), sep="\n")
        if suite == "record" and options.effort != ["--smoke"]:
            print("\nMeans by Google Benchmark (ns a call, per thread)")
            for name, threads, mean in means(options.build, options.effort):
                print(f"  {name:34} {threads} {mean:8.1f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.plot:
        import plot  # Needs matplotlib, which nothing else does.
        plot.draw(rows, QUESTIONS, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
