# SPDX-License-Identifier: Apache-2.0
"""The JSON schema of embedded metric format documents, after "Embedded metric format document structure" and its
schema in the CloudWatch user guide ("Specification: Embedded metric format", read 2026-11)."""

import scenarios

_METRIC = {
    "type": "object",
    "required": ["Name"],
    "additionalProperties": False,
    "properties": {
        "Name": {"type": "string", "minLength": 1, "maxLength": 1024},
        "Unit": {"enum": scenarios.UNITS},
        "StorageResolution": {"enum": [1, 60]},
    },
}

_DIRECTIVE = {
    "type": "object",
    "required": ["Namespace", "Dimensions", "Metrics"],
    "additionalProperties": False,
    "properties": {
        "Namespace": {"type": "string", "minLength": 1, "maxLength": 1024},
        "Dimensions": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "array",
                "maxItems": 30,
                "uniqueItems": True,
                "items": {"type": "string", "minLength": 1, "maxLength": 250},
            },
        },
        "Metrics": {"type": "array", "minItems": 1, "maxItems": 100, "items": _METRIC},
    },
}

DOCUMENT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "additionalProperties": False,
            "properties": {
                "Timestamp": {"type": "integer", "minimum": 0},
                "CloudWatchMetrics": {"type": "array", "minItems": 1, "items": _DIRECTIVE},
            },
        }
    },
}

# What a metric's name and a dimension's name refer to: root members, which a schema of the document cannot name.
METRIC_TARGET = {
    "anyOf": [
        {"type": "number"},
        {"type": "array", "minItems": 1, "maxItems": 100, "items": {"type": "number"}},
    ]
}
DIMENSION_TARGET = {"type": "string", "minLength": 1, "maxLength": 1024}

# Not in the specification: what AWS's agent and exporter write for a distribution.
_NUMBERS = {"type": "array", "minItems": 1, "maxItems": 100, "items": {"type": "number"}}
HISTOGRAM_TARGET = {
    "anyOf": [
        {"type": "number"},
        {
            "type": "object",
            "required": ["Max", "Min", "Count", "Sum"],
            "additionalProperties": False,
            "properties": {
                "Values": _NUMBERS,
                "Counts": _NUMBERS,
                **{name: {"type": "number"} for name in ("Max", "Min", "Count", "Sum")},
            },
        },
    ]
}
# What the default writes: arrays, and objects where they cannot say it in few numbers.
ANY_TARGET = {"anyOf": [METRIC_TARGET, HISTOGRAM_TARGET]}
