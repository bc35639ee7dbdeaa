# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks and prints their tables. See tools/bench."""

import argparse
import json
import pathlib
import subprocess
import sys

QUESTIONS = {
    "counter_add": "What does adding to a counter cost?",
    "gauge_set": "What does setting a gauge cost?",
    "histogram_record": "What does recording into a histogram cost?",
    "counter_by_context": "What does a counter cost whose series the request's tenant chooses?",
    "log_disabled": "What does a log below the level cost?",
    "log_3_fields": "What does a log with an int, a double and nine characters cost?",
    "span_3_annotations": "What does a span with three annotations cost, begun and ended?",
}


def percentiles(build, quick):
    command = [build / "bench/record_percentiles"] + (["--quick"] if quick else [])
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def means(build, quick):
    """Google Benchmark's means, as rows of the same form."""
    command = [build / "bench/record_bench", "--benchmark_format=json",
               f"--benchmark_min_time={0.05 if quick else 0.5}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [(run["name"].split("/")[0], run["threads"], run["real_time"] * run["threads"]) for run in json.loads(output)["benchmarks"]]


def main():
    parser = argparse.ArgumentParser(prog="tools/bench")
    parser.add_argument("--build", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("suite", nargs="?", choices=["record", "all"], default="all")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    options = parser.parse_args()

    rows = percentiles(options.build, options.quick)
    for case, question in QUESTIONS.items():
        print(f"\n{question} ({case}, ns a call)")
        print(f"  {'subject':18} {'threads':>7} {'p50':>8} {'p99':>8} {'p99.9':>9} {'mean':>8}   over floor (p50)")
        floors = {row["threads"]: row["ns_p50"] for row in rows if row["case"] == case and row["subject"] == "floor"}
        for row in (row for row in rows if row["case"] == case):
            floor = floors.get(row["threads"])
            ratio = f"{row['ns_p50'] / floor:.2f}" if floor else ""
            print(f"  {row['subject']:18} {row['threads']:7} {row['ns_p50']:8.1f} {row['ns_p99']:8.1f} "
                  f"{row['ns_p999']:9.1f} {row['ns_mean']:8.1f}   {ratio}")
    print("\nMeans by Google Benchmark (ns a call, per thread)")
    for name, threads, mean in means(options.build, options.quick):
        print(f"  {name:34} {threads} {mean:8.1f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    worst = max(row["ns_p99"] for row in rows if row["subject"] == "spillway")
    print(f"\nhighest p99 of ours: {worst:.1f} ns")
    return 0


sys.exit(main())
