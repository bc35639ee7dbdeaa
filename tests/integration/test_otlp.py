# SPDX-License-Identifier: Apache-2.0
"""OTLP bodies, decoded by OpenTelemetry's own Python package, against what was recorded: every value."""

import gzip
import math
import random

import pytest
import scenarios
from conftest import is_settled
from google.protobuf import message as protobuf_message
from google.protobuf import unknown_fields
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status

ENVIRONMENT = {
    "SPILLWAY_SERVICE": "probe",
    "SPILLWAY_ENVIRONMENT": "test",
    "SPILLWAY_RESOURCE_ATTRIBUTES": "team=é",
    "SPILLWAY_METRICS": "otlp",
    "SPILLWAY_LOGS": "otlp",
    "SPILLWAY_TRACES": "otlp",
    "SPILLWAY_OTLP_ENDPOINT": "http://127.0.0.1:4318",
    "SPILLWAY_TRACE_SAMPLE_RATE": "1",
    "SPILLWAY_METRIC_INTERVAL": "60m",
    "SPILLWAY_RING_BYTES": str(1 << 24),
    "SPILLWAY_QUEUE_BYTES_MAX": str(1 << 30),
}
# How far a value may be from its bucket: what the engine's buckets allow, and a bit.
ERROR = 0.01
UCUM = dict(zip(scenarios.UNITS, [
    "s", "us", "ms", "By", "kBy", "MBy", "GBy", "TBy", "bit", "kbit", "Mbit", "Gbit", "Tbit", "%", "1", "By/s", "kBy/s",
    "MBy/s", "GBy/s", "TBy/s", "bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "1/s", ""]))


def no_unknown_fields(message):
    """Fields that the official messages do not have would be skipped in silence."""
    assert len(unknown_fields.UnknownFieldSet(message)) == 0, message.DESCRIPTOR.full_name
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for one in value if field.is_repeated else [value]:
                no_unknown_fields(one)


def decoded(requests, path, kind):
    """The one resource and scope of every request to a path."""
    for request in requests:
        if request["path"] != path:
            continue
        assert request["headers"]["Content-Type"] == "application/x-protobuf"
        body = bytes.fromhex(request["body_hex"])
        if request["headers"].get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        message = kind.FromString(body)
        no_unknown_fields(message)
        (resource,) = message.ListFields()[0][1]
        known = attributes(resource.resource.attributes)
        assert known.pop("host.name") and known.pop("service.instance.id") and known.pop("telemetry.sdk.version")
        assert known == {"service.name": "probe", "deployment.environment.name": "test", "team": "é",
                         "telemetry.sdk.name": "spillway", "telemetry.sdk.language": "cpp"}
        (scope,) = resource.ListFields()[1][1]
        assert scope.scope.name == "spillway"
        yield scope


def value_of(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(one) for one in any_value.array_value.values]
    assert kind in ("string_value", "bool_value", "int_value", "double_value")
    return getattr(any_value, kind)


def attributes(pairs):
    made = {pair.key: value_of(pair.value) for pair in pairs}
    assert len(made) == len(pairs), "a key stands once"
    return made


def test_the_decoder_sees_what_is_wrong():
    with pytest.raises(protobuf_message.DecodeError):
        ExportLogsServiceRequest.FromString(b"\x0a\x05abc")
    with pytest.raises(AssertionError):
        no_unknown_fields(ExportLogsServiceRequest.FromString(b"\x7a\x01a"))


# ---- Metrics ----


def buckets_of(point):
    """(lowest, highest, count) of each bucket that is not empty, rising."""
    base = 2.0 ** (2.0 ** -point.scale)
    found = []
    for side, sign in ((point.negative, -1), (point.positive, 1)):
        for i, count in enumerate(side.bucket_counts):
            low, high = base ** (side.offset + i), base ** (side.offset + i + 1)
            if count:
                found.append((low, high, count) if sign > 0 else (-high, -low, count))
    if point.zero_count:
        found.append((0.0, 0.0, point.zero_count))
    return sorted(found)


def check_histogram(points, values, name):
    assert sum(point.count for point in points) == len(values), name
    assert min(point.min for point in points) == min(values), name
    assert max(point.max for point in points) == max(values), name
    scale = max(map(abs, values))
    assert scenarios.is_near(math.fsum(point.sum for point in points), math.fsum(values), scale), name
    if len(points) != 1:
        return  # Cut by the end of a second: which value went where is not known.
    ranked = [bucket for bucket in buckets_of(points[0]) for _ in range(bucket[2])]
    assert len(ranked) == len(values), name
    for (low, high, _), value in zip(ranked, sorted(values)):
        slack = ERROR * abs(value) + abs(value) * 1e-9
        assert low - slack <= value <= high + slack, (name, low, value, high)


@pytest.mark.parametrize("seed", range(6))
def test_metrics_by_seed_carry_what_was_recorded(probe, seed):
    good = scenarios.metrics(seed, 120)
    environment = ENVIRONMENT | ({"SPILLWAY_OTLP_COMPRESSION": "none"} if seed % 2 else {})
    requests, result = probe.bodies({"threads": 3, "metrics": good + scenarios.INVALID}, environment)
    stats = result["stats"]["metrics"]
    assert stats["delivered"] == scenarios.count_of(good), result["diagnostics"]
    assert stats["dropped"] == {"invalid": scenarios.count_of(scenarios.INVALID)}
    assert is_settled(stats)

    found = {}
    for scope in decoded(requests, "/v1/metrics", ExportMetricsServiceRequest):
        for metric in scope.metrics:
            data = getattr(metric, metric.WhichOneof("data"))
            for point in data.data_points:
                assert 0 < point.start_time_unix_nano <= point.time_unix_nano
                key = (metric.name, metric.unit, tuple(sorted(attributes(point.attributes).items())))
                found.setdefault(key, []).append((metric, point))

    def key_of(metric):
        name, unit, _, dimensions = scenarios.key_of(metric)
        return name, UCUM[unit], dimensions

    assert set(found) == {key_of(metric) for metric in good}
    for metric in good:
        got, values, name = found[key_of(metric)], metric["values"], metric["name"]
        kinds = {made.WhichOneof("data") for made, _ in got}
        points = [point for _, point in got]
        if metric["kind"] == "counter":
            assert kinds == {"sum"}
            assert all(made.sum.is_monotonic for made, _ in got)
            assert {made.sum.aggregation_temporality for made, _ in got} == {AGGREGATION_TEMPORALITY_DELTA}
            total = math.fsum(point.as_double for point in points)
            assert scenarios.is_near(total, math.fsum(values), max(map(abs, values))), name
        elif metric["kind"] == "gauge":
            assert kinds == {"gauge"}
            # Three threads set it at the same time: the last of one of them.
            lasts = {values[-1 - thread] for thread in range(min(3, len(values)))}
            assert points[-1].as_double in lasts, name
        else:
            assert kinds == {"exponential_histogram"}
            temporality = {made.exponential_histogram.aggregation_temporality for made, _ in got}
            assert temporality == {AGGREGATION_TEMPORALITY_DELTA}
            check_histogram(points, values, name)


# ---- Logs ----


@pytest.mark.parametrize("seed", range(3))
def test_logs_by_seed_carry_what_was_recorded(probe, seed):
    random_ = random.Random(seed)
    alphabet = 'ab "\\/\n\t\x00\x1f\x7fé漢👍\u2028'
    texts = ["".join(random_.choices(alphabet, k=random_.choice([0, 1, 20, 3000]))) for _ in range(3000)]
    requests, result = probe.bodies({"logs": texts}, ENVIRONMENT)
    assert result["stats"]["logs"]["delivered"] == len(texts), result["stats"]
    assert is_settled(result["stats"]["logs"])
    arrived = {}
    for scope in decoded(requests, "/v1/logs", ExportLogsServiceRequest):
        for record in scope.log_records:
            assert record.severity_number == 9 and record.severity_text == "INFO"
            assert record.body.string_value == "event"
            assert record.time_unix_nano == record.observed_time_unix_nano > 1_700_000_000 * 10**9
            fields = attributes(record.attributes)
            assert set(fields) == {"n", "text"}
            arrived[fields["n"]] = fields["text"]
    assert arrived == dict(enumerate(texts))


# ---- Spans ----


def flat(tree, root=None):
    """Every span of a tree with the name of its parent."""
    yield tree, root
    for child in tree.get("children", []):
        yield from flat(child, tree["name"])


@pytest.mark.parametrize("seed", range(3))
def test_spans_by_seed_carry_what_was_recorded(probe, seed):
    random_ = random.Random(seed)
    strings = ["", "acme", "é漢👍", "\x00\x1f\"\\", "s" * 1000]
    number = iter(range(10**6))

    def tree(depth):
        span = {"name": f"op {next(number)}", "children": []}
        if random_.random() < 0.7:
            span["annotations"] = {"n": random_.randrange(-(2**63), 2**63), "v": random_.uniform(-1e300, 1e300),
                                   "b": random_.random() < 0.5, "s": random_.choice(strings)}
        if random_.random() < 0.3:
            span["http"] = {"method": "GET", "url": "https://a/x", "status": random_.choice([200, 404, 429, 500])}
        if depth > 0:
            span["children"] = [tree(depth - 1) for _ in range(random_.randrange(4))]
        return span

    traces = [tree(4) for _ in range(100)]
    requests, result = probe.bodies({"threads": 2, "traces": traces}, ENVIRONMENT)
    stats = result["stats"]["spans"]
    assert stats["delivered"] == stats["recorded"], result
    spans = [span for scope in decoded(requests, "/v1/traces", ExportTraceServiceRequest) for span in scope.spans]
    by_id = {span.span_id: span for span in spans}
    by_name = {span.name: span for span in spans}
    wanted = [pair for trace in traces for pair in flat(trace)]
    assert len(by_id) == len(by_name) == len(spans) == len(wanted) == stats["recorded"]

    known = {trace.replace("-", "")[1:] for trace in result["traces"]}
    for description, parent in wanted:
        span = by_name[description["name"]]
        assert span.trace_id.hex() in known and len(span.span_id) == 8
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.flags & 1, "sampled"
        if parent is None:
            assert span.parent_span_id == b"" and span.kind == Span.SPAN_KIND_SERVER
        else:
            assert by_id[span.parent_span_id].name == parent
            assert by_name[parent].trace_id == span.trace_id
            assert span.kind == Span.SPAN_KIND_INTERNAL
        found = attributes(span.attributes)
        expected = dict(description.get("annotations", {}))
        http = description.get("http")
        if http:
            expected |= {"http.request.method": "GET", "url.full": "https://a/x",
                         "http.response.status_code": http["status"]}
        assert found == expected
        status = http["status"] if http else 200
        # A server that answers 4xx has not failed; one that is called and answers so has.
        failed = status >= 500 or (status >= 400 and parent is not None)
        assert (span.status.code == Status.STATUS_CODE_ERROR) == failed, description


def test_exceptions_and_links_are_the_events_and_links_of_a_span(probe):
    requests, result = probe.bodies({"traces": [{"name": "POST /orders", "everything": True}]}, ENVIRONMENT)
    assert result["stats"]["spans"]["delivered"] == 1
    (scope,) = decoded(requests, "/v1/traces", ExportTraceServiceRequest)
    (span,) = scope.spans
    known, remote = span.events
    for event in span.events:
        assert event.name == "exception"
        assert span.start_time_unix_nano <= event.time_unix_nano <= span.end_time_unix_nano
    outer = attributes(known.attributes)
    assert "std::invalid_argument" in outer["exception.type"] and outer["exception.message"] == "order 7"
    assert outer["exception.stacktrace"] == (
        f"{outer['exception.type']}: order 7\n\tat place() (orders.cpp:17)\n\tat main() (main.cpp:3)\n"
        "Caused by: std::out_of_range: no such key")
    assert attributes(remote.attributes)["exception.type"] == "Remote"
    assert span.status.code == Status.STATUS_CODE_ERROR and span.status.message.startswith("Remote")
    (link,) = span.links
    assert link.trace_id.hex() == "6b00e3540f1e2d3c4b5a69788796a5b4" and link.span_id.hex() == "0000000000000007"
    assert attributes(link.attributes) == {"queue": "q-1"}
    found = attributes(span.attributes)
    assert found["aws.dynamodb.table_names"] == found["aws.resource_names"] == ["one", "two"]
    assert found["cache.hits"] == 3 and found["db.connection_string"] == "host=db"
    assert found["error.type"] == "Remote" and found["http.response.status_code"] == 503
    assert not any(key.startswith("exception.") for key in found)


def test_a_callers_trace_goes_on_with_its_state_and_decision(probe):
    trace, state = "6b00e3540f1e2d3c4b5a69788796a5b4", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
    requests, result = probe.bodies({"traces": [
        {"name": f"sampled {sampled}", "log": f"in {sampled}", "traceparent": f"00-{trace}-1a2b3c4d5e6f7081-0{sampled}",
         "tracestate": state, "children": [{"name": f"child {sampled}"}]} for sampled in (1, 0)]}, ENVIRONMENT)
    assert result["stats"]["spans"]["delivered"] == result["stats"]["logs"]["delivered"] == 2
    spans = [span for scope in decoded(requests, "/v1/traces", ExportTraceServiceRequest) for span in scope.spans]
    assert {span.name for span in spans} == {"sampled 1", "child 1"}
    for span in spans:
        assert span.trace_id.hex() == trace and span.trace_state == state
        is_root = span.name == "sampled 1"
        assert (span.parent_span_id.hex() == "1a2b3c4d5e6f7081") == is_root
        assert bool(span.flags & SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK) == is_root
    logs = {attributes(record.attributes)["text"]: record
            for scope in decoded(requests, "/v1/logs", ExportLogsServiceRequest) for record in scope.log_records}
    for sampled in (1, 0):
        assert logs[f"in {sampled}"].flags == sampled and logs[f"in {sampled}"].trace_id.hex() == trace


def test_exemplars_name_the_trace_of_a_slow_value(probe):
    durations = [3.0, 250.5, 17.25, 900.0, 8.0]
    requests, result = probe.bodies(
        {"traces": [{"name": f"t{i}", "measure": value} for i, value in enumerate(durations)]}, ENVIRONMENT)
    spans = {span.trace_id: span for scope in decoded(requests, "/v1/traces", ExportTraceServiceRequest)
             for span in scope.spans}
    points = [point for scope in decoded(requests, "/v1/metrics", ExportMetricsServiceRequest)
              for metric in scope.metrics for point in metric.exponential_histogram.data_points]
    assert sum(point.count for point in points) == len(durations)
    exemplars = [exemplar for point in points for exemplar in point.exemplars]
    assert 900.0 in [exemplar.as_double for exemplar in exemplars]
    for exemplar in exemplars:
        span = spans[exemplar.trace_id]
        assert span.span_id == exemplar.span_id
        assert durations[int(span.name[1:])] == exemplar.as_double
        # Told by the flusher's clock.
        assert abs(exemplar.time_unix_nano - span.start_time_unix_nano) < 60 * 10**9
