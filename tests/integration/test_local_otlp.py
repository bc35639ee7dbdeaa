# SPDX-License-Identifier: Apache-2.0
"""`spillway local` as a collector, against requests that OpenTelemetry's own Python package wrote: its tables have every
field of every message, what it holds is what was sent, and what no message of OTLP is, it refuses."""

import gzip
import json
import pathlib
import random
import time
import urllib.error
import urllib.request

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

EXPORTS = {
    "/v1/logs": (ExportLogsServiceRequest, ExportLogsServiceResponse),
    "/v1/metrics": (ExportMetricsServiceRequest, ExportMetricsServiceResponse),
    "/v1/traces": (ExportTraceServiceRequest, ExportTraceServiceResponse),
}
# Of the profiles alone ("strindex": an index into their dictionary).
NOT_TAKEN = {"key_strindex", "string_value_strindex"}


class Collector:
    def __init__(self, endpoint):
        self.endpoint = endpoint

    def post(self, path, body, **headers):
        """Status, and the answer's bytes."""
        request = urllib.request.Request(
            self.endpoint + path, body, {"Content-Type": "application/x-protobuf"} | headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def page(self, path):
        with urllib.request.urlopen(f"{self.endpoint}/_spillway/{path}", timeout=30) as answer:
            return json.load(answer)

    def reset(self):
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/_spillway/reset", b""), timeout=30).close()


@pytest.fixture(scope="module")
def collector(serve, request, tmp_path_factory):
    tool = pathlib.Path(request.config.getoption("build")).resolve() / "tools/spillway"
    ports = tmp_path_factory.mktemp("local") / "ports.json"
    server = serve("spillway-local", [tool, "local", "--port", 0, "--udp-port", 0, "--port-file", ports])
    server.wait_until(ports.exists)
    return Collector(json.loads(ports.read_text())["endpoint"])


# ---- Every field ----


def scalar(field, random_):
    kind = field.type
    if kind == field.TYPE_ENUM:
        return random_.choice(field.enum_type.values).number
    if kind == field.TYPE_STRING:
        return random_.choice(["", "a", "é漢👍", "\x00\n"])
    if kind == field.TYPE_BYTES:
        return random_.randbytes(random_.choice([0, 8, 16]))
    if kind == field.TYPE_BOOL:
        return random_.random() < 0.5
    if kind == field.TYPE_DOUBLE:
        return random_.choice([0.0, -1.5, 1e300, float("inf"), float("nan")])
    bits = 32 if kind in (field.TYPE_INT32, field.TYPE_UINT32, field.TYPE_SINT32, field.TYPE_FIXED32) else 64
    if kind in (field.TYPE_INT32, field.TYPE_INT64, field.TYPE_SINT32, field.TYPE_SFIXED64):
        return random_.choice([-(2 ** (bits - 1)), -1, 0, 1, 2 ** (bits - 1) - 1])
    return random_.choice([0, 1, 2**bits - 1])


def fill(message, random_, met, depth=0):
    """Sets fields at random; `met` collects the names of those that were."""
    chosen = {oneof.name: random_.choice(oneof.fields).name for oneof in message.DESCRIPTOR.oneofs}
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if field.name in NOT_TAKEN or (oneof and chosen[oneof.name] != field.name):
            continue
        if field.type != field.TYPE_MESSAGE:
            values = [scalar(field, random_) for _ in range(3)]
            if field.is_repeated:
                getattr(message, field.name).extend(values)
            else:
                setattr(message, field.name, values[0])
        elif depth < 9:
            # Down to the records each message has one or two of the next.
            count = random_.choice([1, 2]) if depth < 4 else random_.choice([0, 1])
            for _ in range(count if field.is_repeated else min(count, 1)):
                inner = getattr(message, field.name)
                fill(inner.add() if field.is_repeated else inner, random_, met, depth + 1)
        else:
            continue
        met.add(field.full_name)


def fields_of(descriptor, met):
    for field in descriptor.fields:
        if field.full_name not in met and field.name not in NOT_TAKEN:
            met.add(field.full_name)
            if field.type == field.TYPE_MESSAGE:
                fields_of(field.message_type, met)
    return met


@pytest.mark.parametrize("path", EXPORTS)
def test_no_field_of_a_message_is_unknown(collector, path):
    request_type, response_type = EXPORTS[path]
    met = set()
    for seed in range(150):
        request = request_type()
        fill(request, random.Random(seed), met)
        status, answer = collector.post(path, request.SerializeToString())
        assert status == 200, (seed, answer)
        response_type.FromString(answer)
    assert fields_of(request_type.DESCRIPTOR, set()) <= met


@pytest.mark.parametrize("path", EXPORTS)
def test_damaged_bodies_are_refused_or_are_other_messages(collector, path):
    """What the official parser refuses, the receiver refuses; nothing makes it answer anything else than 200 or 400."""
    request_type, _ = EXPORTS[path]
    random_ = random.Random(7)
    refused = 0
    for seed in range(100):
        request = request_type()
        fill(request, random.Random(seed), set())
        body = bytearray(request.SerializeToString())
        for _ in range(random_.randrange(1, 4)):
            body[random_.randrange(len(body))] = random_.randrange(256)
        del body[len(body) - random_.randrange(3):]
        status, answer = collector.post(path, bytes(body))
        assert status in (200, 400), answer
        try:
            request_type.FromString(bytes(body))
        except Exception:
            assert status == 400, seed
            refused += 1
    assert refused > 20


# ---- Every record ----


def test_what_it_holds_is_what_was_sent(collector):
    collector.reset()
    now = time.time_ns()
    logs = ExportLogsServiceRequest()
    scope = logs.resource_logs.add().scope_logs.add()
    pair = logs.resource_logs[0].resource.attributes.add(key="service.name")
    pair.value.string_value = "shop"
    for n in range(200):
        record = scope.log_records.add(time_unix_nano=now, severity_number=9)
        record.body.string_value = f"event {n}"
    status, answer = collector.post("/v1/logs", gzip.compress(logs.SerializeToString()), **{"Content-Encoding": "gzip"})
    assert (status, answer) == (200, b"")

    metrics = ExportMetricsServiceRequest()
    points = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="Latency", unit="ms")
    points.exponential_histogram.aggregation_temporality = 1
    point = points.exponential_histogram.data_points.add(
        start_time_unix_nano=now - 1, time_unix_nano=now, count=6, sum=21.0, scale=2, zero_count=1, min=-2.0, max=9.0)
    point.positive.offset = -3
    point.positive.bucket_counts.extend([1, 0, 2])
    point.negative.bucket_counts.extend([2])
    assert collector.post("/v1/metrics", metrics.SerializeToString()) == (200, b"")

    traces = ExportTraceServiceRequest()
    spans = traces.resource_spans.add().scope_spans.add()
    for n in range(100):
        spans.spans.add(trace_id=(n + 1).to_bytes(16, "big"), span_id=(n + 1).to_bytes(8, "big"), name=f"op {n}",
                        start_time_unix_nano=now - 10, end_time_unix_nano=now)
    spans.spans.add(trace_id=b"short", span_id=b"01234567", name="bad", start_time_unix_nano=1, end_time_unix_nano=2)
    status, answer = collector.post("/v1/traces", traces.SerializeToString())
    partial = ExportTraceServiceResponse.FromString(answer).partial_success
    assert (status, partial.rejected_spans) == (200, 1)
    assert "bad" in partial.error_message

    held = collector.page("logs?group=otlp&stream=shop&limit=1000")
    assert [json.loads(event["message"])["body"] for event in held["page"]] == [f"event {n}" for n in range(200)]
    (series,) = collector.page("metrics?values=1")["series"]
    assert (series["name"], series["unit"]) == ("Latency", "ms")
    assert (series["sample_count"], series["sum"], series["min"], series["max"]) == (6, 21.0, -2.0, 9.0)
    base = 2 ** (2**-2)
    wanted = [(-(base**0.5), 2), (0, 1), (base**-2.5, 1), (base**-0.5, 2)]
    assert series["values"] == [[pytest.approx(value), count] for value, count in wanted]
    assert collector.page("traces?limit=0")["segments"]["otlp"] == 100
    assert collector.page("stats")["partial_rejects"] == {"WrongTraceId": 1}
