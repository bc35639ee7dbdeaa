# SPDX-License-Identifier: Apache-2.0
"""Segment documents against X-Ray's schema, and trace headers against the X-Ray SDK for Python."""

import json

import pytest
import xray_schema
from aws_xray_sdk.core.models.trace_header import TraceHeader

ENVIRONMENT = {
    "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "AKIDPROBE", "AWS_SECRET_ACCESS_KEY": "secret",
    "SPILLWAY_SERVICE": "probe", "SPILLWAY_SERVICE_VERSION": "2.4.1", "SPILLWAY_METRICS": "none",
    "SPILLWAY_LOGS": "none", "SPILLWAY_TRACES": "put-trace-segments", "SPILLWAY_TRACE_SAMPLE_RATE": "1",
    "SPILLWAY_REDACT": "none", "SPILLWAY_REDACT_KEYS": "",
    "ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x", "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
    "HOSTNAME": "task-1",
    "OTEL_RESOURCE_ATTRIBUTES": "cloud.account.id=123456789012,aws.ecs.task.arn=arn:t,host.id=i-1,aws.log.group.names=/shop",
}


def documents_of(probe, scenario, **more):
    requests, result = probe.bodies(scenario, ENVIRONMENT | more)
    assert result["diagnostics"] == []
    return [json.loads(text) for request in requests for text in json.loads(request["body"])["TraceSegmentDocuments"]]


def test_a_document_with_every_field_is_one_of_xrays(probe):
    (document,) = documents_of(probe, {"traces": [
        {"name": "POST /orders", "everything": True, "children": [{"name": "child?!", "everything": True}]}]})
    assert xray_schema.errors_of(document) == []
    (child,) = document["subsegments"]
    assert child["name"] == "child"
    for entity in (document, child):
        assert entity["fault"] and entity["throttle"] and entity["error"]
        assert entity["http"]["request"] == {
            "method": "POST", "url": "https://shop.example/orders", "user_agent": "probe", "client_ip": "203.0.113.9",
            "x_forwarded_for": True, "traced": True}
        assert entity["http"]["response"] == {"content_length": 17, "status": 503}
        call = {"operation": "BatchGetItem", "region": "us-east-1", "account_id": "123456789012", "request_id": "R1",
                "table_name": "one", "queue_url": "https://sqs/q", "retries": 2, "table_names": ["one", "two"],
                "resource_names": ["one", "two"]}
        assert call.items() <= entity["aws"].items()
        assert entity["sql"] == {
            "url": "postgres://db:5432/orders", "connection_string": "host=db", "sanitized_query": "SELECT ?",
            "database_type": "PostgreSQL", "database_version": "15.4", "driver_version": "libpq 15", "user": "app",
            "preparation": "statement"}
        assert entity["metadata"] == {"cache": {"hits": 3}}
        assert entity["precursor_ids"] == ["0000000000000009"]
        cause = entity["cause"]
        assert (cause["working_directory"], cause["paths"]) == ("/srv", ["one", "two"])
        outer, inner, remote = cause["exceptions"]
        assert (outer["cause"], inner["type"], inner["message"]) == (inner["id"], "std::out_of_range", "no such key")
        assert "std::invalid_argument" in outer["type"] and outer["message"] == "order 7"
        assert outer["stack"] == [{"path": "orders.cpp", "line": 17, "label": "place()"},
                                  {"path": "main.cpp", "line": 3, "label": "main()"}]
        assert (remote["type"], remote["remote"], remote["skipped"]) == ("Remote", True, 1)
    assert child["namespace"] in ("aws", "remote")
    assert document["links"] == [{"trace_id": "1-6b00e354-0f1e2d3c4b5a69788796a5b4", "id": "0000000000000007",
                                  "attributes": {"queue": "q-1"}}]
    assert document["origin"] == "AWS::ECS::Fargate"
    assert document["service"]["version"] == "2.4.1"
    assert document["aws"]["ecs"] == {"container": "task-1", "task_arn": "arn:t", "launch_type": "fargate"}
    assert document["aws"]["ec2"] == {"instance_id": "i-1"}
    assert document["aws"]["cloudwatch_logs"] == [{"log_group": "/shop"}]


def test_the_parts_of_a_large_trace_are_documents_of_xrays(probe):
    children = [{"name": f"child-{n}", "everything": True, "children": [{"name": "x" * 300}]} for n in range(100)]
    documents = documents_of(probe, {"traces": [{"name": "large", "children": children}]})
    assert len(documents) > 1
    for document in documents:
        assert xray_schema.errors_of(document) == []
        assert len(json.dumps(document, separators=(",", ":"))) <= xray_schema.DOCUMENT_BYTES_MAX


GOOD = {"name": "a", "id": "0" * 15 + "1", "trace_id": "1-6b00e354-0f1e2d3c4b5a69788796a5b4", "start_time": 1795222800.5,
        "end_time": 1795222801}


@pytest.mark.parametrize("mistake", [
    {"name": "a?"}, {"name": ""}, {"name": "x" * 201}, {"id": "1"}, {"id": "000000000000000G"}, {"trace_id": "1-2-3"},
    {"start_time": 1795222800500}, {"end_time": 1}, {"in_progress": True}, {"origin": "AWS::Moon"}, {"colour": 1},
    {"annotations": {"a.b": 1}}, {"annotations": {"a": []}}, {"metadata": {"a": 1}}, {"metadata": {"AWS.a": {}}},
    {"http": {"response": {"status": "200"}}}, {"cause": "x"}, {"cause": {"exceptions": [{"type": "x"}]}},
    {"cause": {"exceptions": [{"id": "0" * 16, "cause": "1" * 16}]}}, {"throttle": True},
    {"subsegments": [GOOD]}, {"namespace": "aws"}, {"type": "subsegment"}, {"links": [{"id": "0" * 16}]},
    {"aws": {"table": "x"}}, {"sql": {"query": "x"}}, {"user": "x" * 251},
])
def test_the_schema_sees_mistakes(mistake):
    assert xray_schema.errors_of(GOOD) == []
    assert xray_schema.errors_of(GOOD | mistake) != []


HEADERS = [
    "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=1",
    "Sampled=0;Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081",
    "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Sampled=?",
    "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4",
    "Self=1-6b00e354-000000000000000000000000;Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081",
    "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=1;Lineage=a87bd80c:1|68fd508a:5",
    "Root=1-6b00e354-0f1e2d3c4b5a69788796a5b4;Parent=1a2b3c4d5e6f7081;Sampled=1;own=value",
]


@pytest.mark.parametrize("header", HEADERS)
def test_the_sdk_and_we_read_headers_alike_and_each_others(probe, header):
    answer = json.loads(probe.run("headers", header + "\n", ENVIRONMENT))
    theirs = TraceHeader.from_header_str(header)
    assert answer["root"] == theirs.root
    assert answer["parent"] == (theirs.parent or "")
    assert answer["sampled"] == {1: "1", 0: "0", None: "", "?": "?"}[theirs.sampled] or (
        answer["sampled"] == "" and theirs.sampled == "?")
    # What we send on, read by the SDK: the same trace, our span as the parent, a decision, all other fields.
    sent = TraceHeader.from_header_str(answer["sent"])
    assert sent.root == theirs.root and sent.parent == answer["span"]
    assert sent.sampled == (theirs.sampled if theirs.sampled in (0, 1) else 1)
    assert sent.data == {key: value for key, value in theirs.data.items() if key != "Self"}
