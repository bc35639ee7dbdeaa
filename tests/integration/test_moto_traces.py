# SPDX-License-Identifier: Apache-2.0
"""PutTraceSegments to moto: BatchGetTraces returns the trees that were recorded."""

import json
import random

from conftest import is_settled

KINDS = "nvbs"  # The annotation keys that the probe has.


def random_tree(random_, depth):
    value = {"n": random_.randrange(-(2**53), 2**53), "v": random_.random() * 10.0 ** random_.randrange(-9, 9),
             "b": random_.random() < 0.5, "s": random_.choice(["acme", "grüße", 'a "b" \\ \n', "漢字"])}
    span = {
        "name": f"op-{random_.randrange(1000)}",
        "annotations": {key: value[key] for key in KINDS if random_.random() < 0.5},
        "children": [],
    }
    if depth > 0:
        span["children"] = [random_tree(random_, depth - 1) for _ in range(random_.randrange(4))]
    return span


def count(span):
    return 1 + sum(count(child) for child in span["children"])


def tree_of(document, is_root=True):
    """A received document in the form of a scenario's span."""
    annotations = dict(document.get("annotations", {}))
    # A segment has the service's name; its own is the annotation.
    name = annotations.pop("operation") if is_root else document["name"]
    children = sorted(document.get("subsegments", []), key=lambda child: child["start_time"])
    return {
        "name": name,
        "annotations": annotations,
        "children": [tree_of(child, False) for child in children],
    }


def received(moto, trace_ids):
    """{trace id: its documents}."""
    client = moto.client("xray")
    found = {}
    for first in range(0, len(trace_ids), 5):
        answer = client.batch_get_traces(TraceIds=trace_ids[first:first + 5])
        assert answer["UnprocessedTraceIds"] == []
        for trace in answer["Traces"]:
            found[trace["Id"]] = [json.loads(s["Document"]) for s in trace["Segments"]]
    return found


def walk(document):
    yield document
    for child in document.get("subsegments", []):
        yield from walk(child)


def test_traces_come_back_as_the_trees_that_were_recorded(moto, probe):
    random_ = random.Random(42)
    traces = [random_tree(random_, 3) for _ in range(60)]
    result = probe.record({"traces": traces}, moto.environment())
    spans = sum(count(trace) for trace in traces)
    assert result["stats"]["spans"]["delivered"] == spans, result
    assert is_settled(result["stats"]["spans"])

    found = received(moto, result["traces"])
    assert len(set(result["traces"])) == len(traces)
    for trace_id, sent in zip(result["traces"], traces):
        (document,) = found[trace_id]
        assert document["name"] == "probe"
        assert tree_of(document) == sent
    everything = [span for documents in found.values() for d in documents for span in walk(d)]
    assert len({span["id"] for span in everything}) == spans
    for span in everything:
        assert span["start_time"] <= span["end_time"]
        for child in span.get("subsegments", []):
            assert span["start_time"] <= child["start_time"]
            assert child["end_time"] <= span["end_time"]


def test_a_trace_too_large_for_one_document_keeps_its_tree(moto, probe):
    # 2000 subsegments of some 150 bytes: several documents of 64 KB.
    root = {"name": "root", "annotations": {}, "children": [
        {"name": f"child-{n}", "annotations": {"n": n}, "children": []} for n in range(2000)]}
    result = probe.record({"traces": [root]}, moto.environment())
    assert result["stats"]["spans"]["delivered"] == 2001, result
    documents = received(moto, result["traces"])[result["traces"][0]]
    assert len(documents) > 1
    assert all(len(json.dumps(d, separators=(",", ":"))) <= 64_000 for d in documents)

    (segment,) = [d for d in documents if d.get("type") != "subsegment"]
    others = [d for d in documents if d is not segment]
    assert all(d["parent_id"] == segment["id"] for d in others)
    children = segment.get("subsegments", []) + others
    assert sorted(c["annotations"]["n"] for c in children) == list(range(2000))
    assert all(c["name"] == f"child-{c['annotations']['n']}" for c in children)


def test_http_blocks_mark_errors_throttles_and_faults(moto, probe):
    marks = {200: set(), 404: {"error"}, 429: {"error", "throttle"}, 503: {"fault"}}
    traces = [
        {"name": "get", "http": {"method": "GET", "url": "https://shop.example/a b?c", "status": s}}
        for s in marks]
    result = probe.record({"traces": traces}, moto.environment())
    found = received(moto, result["traces"])
    for trace_id, (status, expected) in zip(result["traces"], marks.items()):
        (document,) = found[trace_id]
        assert document["http"]["response"]["status"] == status
        assert document["http"]["request"]["method"] == "GET"
        assert {m for m in ("error", "throttle", "fault") if document.get(m)} == expected
