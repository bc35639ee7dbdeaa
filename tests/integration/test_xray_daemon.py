# SPDX-License-Identifier: Apache-2.0
"""Segments by UDP to AWS's X-Ray daemon, which signs them and posts them to our receiver."""

import json

import pytest
from conftest import is_settled


@pytest.fixture
def daemon(xray_daemon):
    xray_daemon.reset()
    return xray_daemon


def record(probe, daemon, scenario, **more):
    environment = {
        "SPILLWAY_SERVICE": "probe",
        "SPILLWAY_LOGS": "none",
        "SPILLWAY_METRICS": "none",
        "SPILLWAY_TRACES": "xray:daemon",
        "SPILLWAY_TRACE_SAMPLE_RATE": "1",
        "AWS_XRAY_DAEMON_ADDRESS": daemon.address,
    } | more
    return probe.record(scenario, environment)


def documents_of(daemon, trace_id):
    page = daemon.page(f"traces?trace_id={trace_id}&limit=1000")["page"]
    return [entry["document"] for entry in page]


def test_a_trace_reaches_the_receiver_as_it_was_recorded(daemon, probe):
    trace = {"name": "orders", "annotations": {"n": 1, "s": "grüße \" \\ \n"},
             "children": [{"name": "inner", "children": [{"name": "innermost"}]}, {"name": "second"}]}
    result = record(probe, daemon, {"traces": [trace]})
    assert result["stats"]["spans"]["delivered"] == 4 and is_settled(result["stats"]["spans"])
    assert daemon.wait_for_spans(4) == 4, daemon.server.tail()
    (document,) = documents_of(daemon, result["traces"][0])
    assert document["name"] == "probe"
    assert document["annotations"] == {"n": 1, "s": "grüße \" \\ \n", "operation": "orders"}
    first, second = document["subsegments"]
    assert (first["name"], second["name"]) == ("inner", "second")
    assert [child["name"] for child in first["subsegments"]] == ["innermost"]
    stats = daemon.page("stats")
    assert stats["errors"] == {} and stats["partial_rejects"] == {}


def test_documents_of_the_greatest_size_pass(daemon, probe):
    # Less than what an open segment gathers before its children go ahead of it.
    children = [{"name": f"child-{n}", "annotations": {"s": "x" * 900}} for n in range(200)]
    result = record(probe, daemon, {"traces": [{"name": "large", "children": children}]})
    assert result["stats"]["spans"]["delivered"] == 201, result
    assert daemon.wait_for_spans(201) == 201, daemon.server.tail()
    documents = documents_of(daemon, result["traces"][0])
    names = [child["name"] for d in documents for child in [*d.get("subsegments", []), d]
             if child["name"].startswith("child-")]
    assert sorted(names) == sorted(child["name"] for child in children)
    assert max(len(json.dumps(d, separators=(",", ":"))) for d in documents) > 60_000


def test_ten_thousand_segments_at_two_thousand_a_second_all_arrive(daemon, probe):
    count = 10_000
    lost_before = daemon.lost_in_the_kernel()
    traces = [{"name": "op", "annotations": {"n": n}, "children": [{"name": "child"}]} for n in range(count)]
    result = record(probe, daemon, {"threads": 2, "traces": traces, "traces_per_second": 2000})
    assert result["stats"]["spans"]["delivered"] == 2 * count, result["stats"]
    arrived = daemon.wait_for_spans(2 * count)
    lost = daemon.lost_in_the_kernel() - lost_before
    assert (arrived >= 2 * count, lost) == (True, 0), (
        f"{lost} of {count} documents were lost in the daemon's socket buffer:\n{daemon.server.tail()}")
    # By their ids: the daemon's own retries may bring a batch twice.
    page = daemon.page(f"traces?limit={2 * count}")["page"]
    assert {entry["document"]["trace_id"] for entry in page} == set(result["traces"])
    assert len(set(result["traces"])) == count


def test_without_a_daemon_the_spans_are_counted(probe, daemon):
    class Nobody:
        address = "127.0.0.1:9"

    result = record(probe, Nobody, {"traces": [{"name": "op"}] * 5, "traces_per_second": 4},
                    SPILLWAY_TRACE_INTERVAL="10ms", SPILLWAY_ATTEMPTS_MAX="2")
    stats = result["stats"]["spans"]
    assert is_settled(stats) and stats["recorded"] == 5
    # The kernel says of one datagram only at the next that nobody took it.
    assert stats["dropped"].keys() <= {"retries_exhausted"}
    assert any("127.0.0.1:9" in text for text in result["diagnostics"]), result
