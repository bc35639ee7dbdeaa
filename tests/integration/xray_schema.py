# SPDX-License-Identifier: Apache-2.0
"""X-Ray's segment documents as a JSON schema, written from the tables of the X-Ray developer guide ("AWS X-Ray segment
documents") and, for what came after it, from the segment model of OpenTelemetry's X-Ray exporter. Nothing that is not in
one of them is allowed, so a member with a mistyped name is an error.
"""

import re

import jsonschema

DOCUMENT_BYTES_MAX = 64 * 1024
NAME = r"^[\w\s.:/%&#=+\\\-@]{1,200}$"
TEXT = {"type": "string", "maxLength": 250}
ID = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
TRACE_ID = {"type": "string", "pattern": "^1-[0-9a-f]{8}-[0-9a-f]{24}$"}
TIME = {"type": "number", "exclusiveMinimum": 1e9, "exclusiveMaximum": 1e10}
COUNT = {"type": "integer", "minimum": 0}
TRUE = {"const": True}


def members(required=(), **properties):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def texts(*names):
    return {name: TEXT for name in names}


FRAME = members(path=TEXT, line=COUNT, label=TEXT)
EXCEPTION = members(["id"], id=ID, message=TEXT, type=TEXT, remote={"type": "boolean"}, truncated=COUNT, skipped=COUNT,
                    cause=ID, stack={"type": "array", "items": FRAME})
CAUSE = {"anyOf": [ID, members(working_directory=TEXT, paths={"type": "array", "items": TEXT},
                               exceptions={"type": "array", "items": EXCEPTION})]}
CALL = dict(operation=TEXT, account_id=TEXT, region=TEXT, request_id=TEXT, queue_url=TEXT, table_name=TEXT,
            table_names={"type": "array", "items": TEXT}, resource_names={"type": "array", "items": TEXT}, retries=COUNT)
COMMON = dict(
    name={"type": "string", "pattern": NAME}, id=ID, trace_id=TRACE_ID, parent_id=ID, start_time=TIME, end_time=TIME,
    in_progress=TRUE, error=TRUE, throttle=TRUE, fault=TRUE, cause=CAUSE,
    http=members(
        request=members(**texts("method", "url", "user_agent", "client_ip"), x_forwarded_for={"type": "boolean"},
                        traced={"type": "boolean"}),
        response=members(status={"type": "integer", "minimum": 100, "maximum": 599},
                         content_length={"type": "integer", "minimum": -1})),
    sql=members(**texts("connection_string", "url", "sanitized_query", "database_type", "database_version",
                        "driver_version", "user"), preparation={"enum": ["call", "statement"]}),
    annotations={"type": "object", "propertyNames": {"pattern": "^[A-Za-z0-9_]+$"},
                 "additionalProperties": {"type": ["string", "number", "boolean"]}},
    metadata={"type": "object", "propertyNames": {"not": {"pattern": r"^AWS\."}},
              "additionalProperties": {"type": "object", "propertyNames": {"not": {"pattern": r"^AWS\."}}}},
    precursor_ids={"type": "array", "items": ID, "minItems": 1},
    subsegments={"type": "array", "items": {"$ref": "#/$defs/subsegment"}, "minItems": 1},
)
ENDED = {"oneOf": [{"required": ["end_time"]}, {"required": ["in_progress"]}]}
SUBSEGMENT = members(
    ["name", "id", "start_time"], **COMMON, type={"const": "subsegment"}, namespace={"enum": ["aws", "remote"]},
    aws=members(**CALL)) | ENDED
SEGMENT = members(
    ["name", "id", "start_time", "trace_id"], **COMMON, user=TEXT, resource_arn=TEXT,
    service=members(**texts("version", "runtime", "runtime_version", "compiler", "compiler_version")),
    origin={"enum": ["AWS::EC2::Instance", "AWS::ECS::Container", "AWS::ECS::EC2", "AWS::ECS::Fargate",
                     "AWS::EKS::Container", "AWS::ElasticBeanstalk::Environment", "AWS::AppRunner::Service",
                     "AWS::Lambda::Function"]},
    links={"type": "array", "minItems": 1,
           "items": members(["trace_id"], trace_id=TRACE_ID, id=ID, attributes={"type": "object"})},
    aws=members(
        **CALL,
        cloudwatch_logs={"type": "array", "items": members(["log_group"], log_group=TEXT, arn=TEXT)},
        ec2=members(**texts("instance_id", "instance_size", "ami_id", "availability_zone")),
        ecs=members(**texts("container", "container_id", "container_arn", "task_arn", "task_family", "cluster_arn",
                            "availability_zone", "launch_type")),
        eks=members(**texts("pod", "cluster_name", "container_id")),
        elastic_beanstalk=members(**texts("environment_name", "version_label"), deployment_id={"type": "integer"}),
        xray=members(**texts("sdk", "sdk_version", "sampling_rule_name"), auto_instrumentation={"type": "boolean"}))) | ENDED
_defs = {"$defs": {"subsegment": SUBSEGMENT}}
_segment = jsonschema.Draft202012Validator(SEGMENT | _defs)
_subsegment = jsonschema.Draft202012Validator(
    {"allOf": [{"$ref": "#/$defs/subsegment"}, {"required": ["type", "trace_id", "parent_id"]}]} | _defs)


def errors_of(document):
    """What is wrong with a document, each with where."""
    validator = _subsegment if document.get("type") == "subsegment" else _segment
    found = [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(document)]
    ids = set()

    def visit(entity, path, top):
        if entity["id"] in ids:
            found.append(f"{path}: its id is another's")
        ids.add(entity["id"])
        if entity.get("end_time", entity["start_time"]) < entity["start_time"]:
            found.append(f"{path}: it ends before it begins")
        if entity.get("throttle") and not entity.get("error"):
            found.append(f"{path}: a throttle is an error")
        if not top:
            found.extend(f"{path}: {key} is for what is sent alone" for key in ("type", "trace_id", "parent_id")
                         if key in entity)
        known = {one["id"] for one in entity["cause"].get("exceptions", [])} if isinstance(entity.get("cause"), dict) else set()
        for one in known and entity["cause"]["exceptions"]:
            if "cause" in one and one["cause"] not in known:
                found.append(f"{path}: exception {one['id']} is caused by one that is not there")
        for index, child in enumerate(entity.get("subsegments", [])):
            visit(child, f"{path}.subsegments[{index}]", False)

    if not found:
        visit(document, "$", True)
    return found


assert re.match(NAME, "POST /orders") and not re.match(NAME, "a?b")
