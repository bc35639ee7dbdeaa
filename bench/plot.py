# SPDX-License-Identifier: Apache-2.0
"""Draws rows of the benchmarks as pictures: what a call costs, ours beside floor and peers, and what is sustained."""

import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS, FLOOR, PEER = "tab:blue", "tab:gray", "tab:orange"
MARKERS = "osv^Dx+*<>1234"


def colour(row, rows):
    """By whose it is. Where no subject is called spillway, all are ours, in different circumstances."""
    if row["subject"] in ("spillway", "floor"):
        return {"spillway": OURS, "floor": FLOOR}[row["subject"]]
    return PEER if any(one["subject"] == "spillway" and one["case"] == row["case"] for one in rows) else OURS


def label(row):
    threads = row["threads"]
    return f"{row['subject']}, {threads} thread{'s' if threads > 1 else ''}"


def latency(case, question, rows, file):
    """The whole distribution of each row: which share of the calls took longer than so many ns, both on logarithmic axes."""
    rows = sorted((row for row in rows if row.get("ns_at_shares")), key=lambda row: row["ns_p50"])
    if not rows:
        return
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for row in rows:
        least = 0.1  # What the clock cannot see, on an axis without a zero.
        axes.plot([max(least, ns) for _, ns in row["ns_at_shares"]], [1 - share for share, _ in row["ns_at_shares"]],
                  color=colour(row, rows), linestyle="-" if row["threads"] == 1 else "--", linewidth=1, label=label(row),
                  marker=MARKERS[[one["subject"] for one in rows].index(row["subject"]) % len(MARKERS)], markersize=3)
    axes.set(xscale="log", yscale="log", xlabel="ns a call", ylabel="share of the calls that took longer",
             yticks=[0.5, 0.1, 0.01, 0.001, 0.0001], yticklabels=["p50", "p90", "p99", "p99.9", "p99.99"])
    axes.set_title(f"{question}  ({case})", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize=7)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def throughput(rows, file):
    """Records a second of every row that has them, on a logarithmic axis."""
    rows = [row for row in reversed(rows) if row["per_second"]]
    figure, axes = plt.subplots(figsize=(8, 1 + 0.3 * len(rows)), layout="constrained")
    axes.barh(range(len(rows)), [row["per_second"] for row in rows], color=[colour(row, rows) for row in rows])
    axes.set(xscale="log", xlabel="records a second", yticks=range(len(rows)),
             yticklabels=[f"{row['case']}: {row['subject']}" for row in rows])
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def draw(rows, questions, folder: pathlib.Path):
    folder.mkdir(parents=True, exist_ok=True)
    for suite in dict.fromkeys(row["suite"] for row in rows):
        of_suite = [row for row in rows if row["suite"] == suite]
        for case in dict.fromkeys(row["case"] for row in of_suite if row["ns_p50"] is not None):
            if suite in ("record", "middleware"):
                latency(case, questions[suite][case], [row for row in of_suite if row["case"] == case],
                        folder / f"{suite}_{case}.png")
        if any(row["per_second"] for row in of_suite):
            throughput(of_suite, folder / f"{suite}_throughput.png")
