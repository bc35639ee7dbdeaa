# SPDX-License-Identifier: Apache-2.0
"""Request bodies against botocore's service models, and what they carry against what was recorded."""

import io
import json
import math
import random
import re

import botocore.parsers
import botocore.session
import botocore.validate
import pytest
import scenarios
from conftest import is_settled

ENVIRONMENT = {
    "AWS_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DISABLE_REQUEST_COMPRESSION": "true",
    "SPILLWAY_SERVICE": "probe",
    "SPILLWAY_METRICS": "put-metric-data",
    "SPILLWAY_LOGS": "put-log-events",
    "SPILLWAY_TRACES": "put-trace-segments",
    "SPILLWAY_TRACE_SAMPLE_RATE": "1",
    # An interval of the clock; a shorter one ends in the middle of a test now and then.
    "SPILLWAY_METRIC_INTERVAL": "60m",
    # Room for all of it: what a full ring or queue drops is not what this is about.
    "SPILLWAY_RING_BYTES": str(1 << 24),
    "SPILLWAY_QUEUE_BYTES_MAX": str(1 << 30),
}


@pytest.fixture(scope="module")
def models():
    session = botocore.session.get_session()
    return {
        operation: session.get_service_model(service).operation_model(operation)
        for service, operation in [
            ("cloudwatch", "PutMetricData"), ("logs", "PutLogEvents"), ("xray", "PutTraceSegments")]
    }


def upper_limits(value, shape, where):
    """Violations of what botocore leaves to the service: maxima, enumerations and patterns."""
    limits = shape.metadata
    size = len(value) if isinstance(value, (str, list, dict)) else value
    if "max" in limits and size > limits["max"]:
        yield f"{where}: {size} is more than {limits['max']}"
    if limits.get("enum") and value not in limits["enum"]:
        yield f"{where}: {value} is none of the enumeration"
    if "pattern" in limits and not re.fullmatch(limits["pattern"], value):
        yield f"{where}: {value!r} does not match {limits['pattern']}"
    if shape.type_name == "structure":
        for name, member in value.items():
            yield from upper_limits(member, shape.members[name], f"{where}.{name}")
    elif shape.type_name == "list":
        for index, member in enumerate(value):
            yield from upper_limits(member, shape.member, f"{where}[{index}]")


def check(body, model):
    """The parsed body, valid by the model."""
    parsed = json.loads(body, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    report = botocore.validate.ParamValidator().validate(parsed, model.input_shape)
    assert not report.has_errors(), report.generate_report()[:2000]
    violations = list(upper_limits(parsed, model.input_shape, model.name))
    assert not violations, violations[:5]
    return parsed


def of(requests, operation):
    def is_it(request):
        target = request["headers"].get("X-Amz-Target", "")
        return target.endswith("." + operation) or (operation == "PutTraceSegments" and
                                                    request["path"] == "/TraceSegments")
    return [request for request in requests if is_it(request)]


# ---- The checker itself ----


def test_the_checker_sees_what_is_wrong(models):
    good = {"Namespace": "N", "MetricData": [{"MetricName": "M", "Unit": "Count", "Value": 1.5}]}
    model = models["PutMetricData"]
    check(json.dumps(good), model)
    for bad in [
        {"MetricData": []},
        good | {"Namespace": ":N"},
        good | {"Namespace": "N" * 256},
        good | {"Other": 1},
        good | {"MetricData": [{"Unit": "Count"}]},
        good | {"MetricData": [{"MetricName": "M", "Unit": "Counts"}]},
        good | {"MetricData": [{"MetricName": "M", "Value": "1"}]},
        good | {"MetricData": [{"MetricName": "M", "Dimensions": [{"Name": "D", "Value": ""}]}]},
        good | {"MetricData": [{"MetricName": "M", "Dimensions": [{"Name": "D", "Value": "v"}] * 31}]},
    ]:
        with pytest.raises(AssertionError):
            check(json.dumps(bad), model)


# ---- PutMetricData ----


def numbers_of(datum):
    statistics = datum.get("StatisticValues", {})
    yield from (statistics[name] for name in ("Sum", "Minimum", "Maximum") if name in statistics)
    yield from datum.get("Values", [])
    if "Value" in datum:
        yield datum["Value"]


def check_datum(datum):
    """Rules of the API reference that the model does not have."""
    assert ("Value" in datum) != ("StatisticValues" in datum)
    values, counts = datum.get("Values", []), datum.get("Counts", [])
    assert len(values) == len(counts) <= 150
    assert len(set(values)) == len(values)
    assert datum["StorageResolution"] in (1, 60)
    for number in numbers_of(datum):
        assert number == 0 or scenarios.SMALLEST <= abs(number) <= scenarios.GREATEST * 4
    if "StatisticValues" in datum:
        statistics = datum["StatisticValues"]
        assert statistics["SampleCount"] > 0
        assert statistics["Minimum"] <= statistics["Maximum"]
    if values:
        assert all(count > 0 for count in counts)
        assert statistics["SampleCount"] == sum(counts)
        assert statistics["Minimum"] == min(values) and statistics["Maximum"] == max(values)


def datum_key(datum):
    dimensions = tuple(sorted((d["Name"], d["Value"]) for d in datum.get("Dimensions", [])))
    return datum["MetricName"], datum["Unit"], datum["StorageResolution"], dimensions


def cbor_of(body, model):
    """The body read by botocore's own CBOR parser, valid by the model."""
    stream = io.BufferedReader(io.BytesIO(body))
    parsed = botocore.parsers.RpcV2CBORParser().parse_data_item(stream)
    assert stream.read() == b"", "bytes behind the item"
    report = botocore.validate.ParamValidator().validate(parsed, model.input_shape)
    assert not report.has_errors(), report.generate_report()[:2000]
    violations = list(upper_limits(parsed, model.input_shape, model.name))
    assert not violations, violations[:5]
    return parsed


def datums_of(request, model, entity):
    """Of one request, in JSON or CBOR, with or without an entity."""
    if "body_hex" in request:
        headers = request["headers"]
        assert request["path"] == "/service/GraniteServiceVersion20100801/operation/PutMetricData"
        assert headers["smithy-protocol"] == "rpc-v2-cbor" and "X-Amz-Target" not in headers
        text = bytes.fromhex(request["body_hex"])
        body = cbor_of(text, model)
    else:
        text = request["body"].encode()
        body = check(request["body"], model)
    assert len(text) <= 1_000_000
    if not entity:
        return body["MetricData"]
    (part,) = body["EntityMetricData"]
    assert part["Entity"] == {
        "KeyAttributes": {"Type": "Service", "Name": "probe", "Environment": "prod"},
        "Attributes": {"AWS.ServiceNameSource": "UserConfiguration"}}
    assert body["StrictEntityValidation"] is False and "MetricData" not in body
    return part["MetricData"]


WITH_ENTITY = {"SPILLWAY_METRIC_ENTITY": "true", "SPILLWAY_ENVIRONMENT": "prod",
               "SPILLWAY_METRIC_ENTITY_ATTRIBUTES": "AWS.ServiceNameSource=UserConfiguration"}


@pytest.mark.parametrize(
    ("seed", "form", "entity"),
    [(seed, "json", False) for seed in range(6)] + [(6, "json", True), (7, "cbor", True), (8, "cbor", False),
                                                    (9, "cbor", False)])
def test_metrics_by_seed_are_valid_and_carry_what_was_recorded(models, probe, seed, form, entity):
    good = scenarios.metrics(seed, 120)
    environment = ENVIRONMENT | {"SPILLWAY_METRIC_DATA_FORMAT": form} | (WITH_ENTITY if entity else {})
    requests, result = probe.bodies({"threads": 3, "metrics": good + scenarios.INVALID}, environment)
    stats = result["stats"]["metrics"]
    assert stats["delivered"] == scenarios.count_of(good), result["diagnostics"]
    assert stats["dropped"] == {"invalid": scenarios.count_of(scenarios.INVALID)}
    assert is_settled(stats)

    datums = {}
    for request in requests:
        sent = datums_of(request, models["PutMetricData"], entity)
        assert 1 <= len(sent) <= 1000
        for datum in sent:
            check_datum(datum)
            datums.setdefault(datum_key(datum), []).append(datum)

    assert set(datums) == {scenarios.key_of(metric) for metric in good}
    for metric in good:
        got = datums[scenarios.key_of(metric)]
        values, name = metric["values"], metric["name"]
        scale = max(map(abs, values))
        if metric["kind"] == "counter":
            assert scenarios.is_near(sum(d["Value"] for d in got), math.fsum(values), scale), name
            continue
        statistics = [d["StatisticValues"] for d in got]
        assert sum(s["SampleCount"] for s in statistics) == len(values), name
        assert min(s["Minimum"] for s in statistics) == min(values), name
        assert max(s["Maximum"] for s in statistics) == max(values), name
        assert scenarios.is_near(math.fsum(s["Sum"] for s in statistics), math.fsum(values), scale), name


def test_more_metrics_than_a_request_takes_go_in_several(models, probe):
    metrics = [{"kind": "counter", "name": f"M{n}", "unit": "Count", "values": [n]} for n in range(2500)]
    requests, result = probe.bodies({"metrics": metrics}, ENVIRONMENT)
    assert result["stats"]["metrics"]["delivered"] == 2500
    bodies = [check(r["body"], models["PutMetricData"]) for r in of(requests, "PutMetricData")]
    assert sorted(len(body["MetricData"]) for body in bodies) == [500, 1000, 1000]
    sent = {datum["MetricName"]: datum["Value"] for body in bodies for datum in body["MetricData"]}
    assert sent == {f"M{n}": n for n in range(2500)}


# ---- PutLogEvents ----


@pytest.mark.parametrize("seed", range(4))
def test_log_events_by_seed_are_valid_and_carry_what_was_recorded(models, probe, seed):
    random_ = random.Random(seed)
    alphabet = 'ab "\\/\n\t\x00\x1f\x7fé漢👍\u2028'
    lengths = [random_.choice([0, 1, 20, 300]) for _ in range(12_000)] + [70_000] * 30 + [1_000_000]
    random_.shuffle(lengths)
    texts = ["".join(random_.choices(alphabet, k=min(n, 300))) + "p" * max(n - 300, 0) for n in lengths]
    requests, result = probe.bodies({"logs": texts}, ENVIRONMENT)
    assert result["stats"]["logs"]["delivered"] == len(texts), result["stats"]
    assert is_settled(result["stats"]["logs"])

    arrived = []
    for request in of(requests, "PutLogEvents"):
        body = check(request["body"], models["PutLogEvents"])
        events = body["logEvents"]
        times = [event["timestamp"] for event in events]
        assert times == sorted(times) and times[-1] - times[0] < 24 * 3600 * 1000
        assert sum(len(event["message"].encode()) + 26 for event in events) <= 1_048_576
        arrived += [json.loads(event["message"]) for event in events]
    assert [message["n"] for message in arrived] == list(range(len(texts)))
    different = [m["n"] for m in arrived if "truncated" not in m and m["text"] != texts[m["n"]]]
    assert not different
    assert [m["n"] for m in arrived if "truncated" in m] == []


@pytest.mark.parametrize(
    ("character", "bytes_in_json"), [("x", 1), ("\x01", 6), ("é", 2), ("👍", 4), ('"', 2)],
    ids=["ascii", "control", "two bytes", "four bytes", "quote"])
def test_an_event_too_large_is_cut_with_a_mark(models, probe, character, bytes_in_json):
    largest = 1_048_576 - 26
    text = character * (2 * largest // bytes_in_json)
    # A ring of the usual size: texts beyond a quarter of it go beside it, and keep their place all the same.
    environment = ENVIRONMENT | {"SPILLWAY_RING_BYTES": str(1 << 20)}
    requests, result = probe.bodies({"logs": ["before", text, "after"]}, environment)
    assert result["stats"]["logs"]["delivered"] == 3, result
    events = [event for request in of(requests, "PutLogEvents")
              for event in check(request["body"], models["PutLogEvents"])["logEvents"]]
    messages = [json.loads(event["message"]) for event in events]
    assert [message["n"] for message in messages] == [0, 1, 2]
    assert messages[1]["truncated"] is True
    assert set(messages[1]["text"]) == {character}, "cut between characters"
    assert largest // 4 < len(events[1]["message"].encode()) <= largest


# ---- PutTraceSegments ----


def spans_in(document):
    return 1 + sum(spans_in(child) for child in document.get("subsegments", []))


@pytest.mark.parametrize("seed", range(4))
def test_segments_by_seed_are_valid_and_whole(models, probe, seed):
    random_ = random.Random(seed)
    strings = ["", "acme", "é漢👍", "\x00\x1f\"\\", "s" * 1000, "l" * 5000]
    names = ["op", "", "a?b;c*d", "é/漢 x", "n" * 300, "*?!", "\n"]

    def tree(depth):
        span = {"name": random_.choice(names), "children": []}
        if random_.random() < 0.7:
            span["annotations"] = {"n": random_.randrange(-(2**63), 2**63), "v": random_.uniform(-1e300, 1e300),
                                   "b": True, "s": random_.choice(strings)}
        if random_.random() < 0.3:
            span["http"] = {"method": "GET", "url": "https://a/" + random_.choice(strings),
                            "status": random_.choice([200, 404, 429, 500])}
        if depth > 0:
            span["children"] = [tree(depth - 1) for _ in range(random_.randrange(5))]
        return span

    traces = [tree(4) for _ in range(120)]
    requests, result = probe.bodies({"threads": 2, "traces": traces}, ENVIRONMENT)
    stats = result["stats"]["spans"]
    assert stats["delivered"] == stats["recorded"] > len(traces), result
    total = 0
    for request in of(requests, "PutTraceSegments"):
        body = check(request["body"], models["PutTraceSegments"])
        assert 1 <= len(body["TraceSegmentDocuments"]) <= 50
        for text in body["TraceSegmentDocuments"]:
            assert len(text.encode()) <= 64_000
            total += check_document(json.loads(text), is_root=True)
    assert total == stats["delivered"]


HEX16 = re.compile(r"[0-9a-f]{16}")
SEGMENT_NAME = re.compile(r"[\w\s.:/%&#=+\\\-@]{1,200}")


def check_document(span, is_root=False):
    """Rules of the guide's "X-Ray segment documents"; returns the number of spans in it."""
    assert HEX16.fullmatch(span["id"]) and SEGMENT_NAME.fullmatch(span["name"]), span["name"]
    assert span["start_time"] <= span["end_time"]
    if is_root:
        assert re.fullmatch(r"1-[0-9a-f]{8}-[0-9a-f]{24}", span["trace_id"])
    if is_root and span.get("type") == "subsegment":
        assert HEX16.fullmatch(span["parent_id"])
    for key, value in span.get("annotations", {}).items():
        assert re.fullmatch(r"\w+", key, re.ASCII)
        assert isinstance(value, (bool, int, float)) or len(value) <= 1000
    http = span.get("http", {})
    assert set(http) <= {"request", "response"}
    assert len(http.get("request", {}).get("url", "")) <= 1000
    assert isinstance(http.get("response", {}).get("status", 200), int)
    assert not (span.get("throttle") and not span.get("error"))
    return 1 + sum(check_document(child) for child in span.get("subsegments", []))
