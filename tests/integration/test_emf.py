# SPDX-License-Identifier: Apache-2.0
"""Embedded metric format against the schema of its specification, and what it carries against what was recorded."""

import json
import math
import time

import emf_schema
import jsonschema
import pytest
import scenarios
from conftest import is_settled

ENVIRONMENT = {
    "AWS_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "SPILLWAY_SERVICE": "probe",
    "SPILLWAY_METRIC_NAMESPACE": "Shop/Api",
    "SPILLWAY_LOGS": "none",
    "SPILLWAY_METRIC_INTERVAL": "60m",
}


def no_duplicates(pairs):
    members = dict(pairs)
    assert len(members) == len(pairs), "a member is there twice"
    return members


def parse(text):
    return json.loads(text, object_pairs_hook=no_duplicates,
                      parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


def check(text, target_schema=emf_schema.METRIC_TARGET):
    """The parsed document, valid by the specification."""
    assert len(text.encode()) <= 1_048_576 - 26
    document = parse(text)
    jsonschema.validate(document, emf_schema.DOCUMENT)
    for directive in document["_aws"]["CloudWatchMetrics"]:
        names = [metric["Name"] for metric in directive["Metrics"]]
        assert len(set(names)) == len(names)
        for name in names:
            jsonschema.validate(document[name], target_schema)
        for dimension_set in directive["Dimensions"]:
            for dimension in dimension_set:
                jsonschema.validate(document[dimension], emf_schema.DIMENSION_TARGET)
    return document


def targets(documents):
    """{series key: the values of its targets, in order}."""
    found = {}
    for document in documents:
        (directive,) = document["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "Shop/Api"
        (names,) = directive["Dimensions"]
        dimensions = tuple(sorted((name, document[name]) for name in names))
        for metric in directive["Metrics"]:
            key = (metric["Name"], metric["Unit"], metric.get("StorageResolution", 60), dimensions)
            found.setdefault(key, []).append(document[metric["Name"]])
    return found


def flatten(parts):
    return [value for part in parts for value in (part if isinstance(part, list) else [part])]


# ---- The checker itself ----


GOOD = {"_aws": {"Timestamp": 1, "CloudWatchMetrics": [
    {"Namespace": "N", "Dimensions": [["D"]], "Metrics": [{"Name": "M", "Unit": "Count"}]}]}, "D": "d", "M": 1}


def test_the_checker_takes_a_good_document():
    check(json.dumps(GOOD))


@pytest.mark.parametrize("change", [
    lambda d: d.pop("M"), lambda d: d.pop("D"), lambda d: d.pop("_aws"),
    lambda d: d.update(M="1"), lambda d: d.update(M=[]), lambda d: d.update(M=[1] * 101), lambda d: d.update(D=1),
    lambda d: d.update(M={"Max": 1, "Min": 1, "Count": 1, "Sum": 1}),
    lambda d: d["_aws"].update(Timestamp=1.5),
    lambda d: d["_aws"]["CloudWatchMetrics"][0]["Metrics"][0].update(Unit="Counts"),
    lambda d: d["_aws"]["CloudWatchMetrics"][0]["Metrics"][0].update(StorageResolution=5),
    lambda d: d["_aws"]["CloudWatchMetrics"][0].update(Metrics=[{"Name": "M"}] * 2),
    lambda d: d["_aws"]["CloudWatchMetrics"][0].update(Dimensions=[]),
    lambda d: d["_aws"]["CloudWatchMetrics"][0].update(Namespace=""),
])
def test_the_checker_sees_what_is_wrong(change):
    document = json.loads(json.dumps(GOOD))
    change(document)
    with pytest.raises((jsonschema.ValidationError, AssertionError, KeyError)):
        check(json.dumps(document))


# ---- Our documents ----


@pytest.mark.parametrize("seed", range(6))
def test_documents_are_valid_and_carry_what_was_recorded(probe, tmp_path, seed):
    good = scenarios.metrics(seed, 120)
    file = tmp_path / "metrics.json"
    started = time.time()
    result = probe.record(
        {"metrics": good + scenarios.INVALID},
        ENVIRONMENT | {"SPILLWAY_METRICS": "emf:file", "SPILLWAY_METRICS_FILE": str(file)})
    stats = result["stats"]["metrics"]
    assert stats["delivered"] == scenarios.count_of(good), result
    assert stats["dropped"] == {"invalid": scenarios.count_of(scenarios.INVALID)}
    assert is_settled(stats)

    text = file.read_text()
    assert text.endswith("\n")
    documents = [check(line, emf_schema.ANY_TARGET) for line in text.splitlines()]
    assert all(started - 120 < d["_aws"]["Timestamp"] / 1000 < time.time() + 1 for d in documents)
    found = targets(documents)
    assert set(found) == {scenarios.key_of(metric) for metric in good}
    for metric in good:
        values, name = metric["values"], metric["name"]
        got = flatten(found[scenarios.key_of(metric)])
        scale = max(map(abs, values))
        if metric["kind"] == "gauge" and isinstance(got[0], dict):  # A few are far from the rest.
            (one,) = got
            assert (one["Min"], one["Max"], one["Count"]) == (min(values), max(values), len(values)), name
            assert scenarios.is_near(one["Sum"], math.fsum(values), scale), name
            continue
        assert not any(isinstance(part, dict) for part in got), name
        if metric["kind"] == "counter":
            assert scenarios.is_near(math.fsum(got), math.fsum(values), scale), name
            continue
        assert (min(got), max(got)) == (min(values), max(values)), name
        if metric["kind"] == "histogram":
            assert len(got) == len(values), name
            assert scenarios.is_near(math.fsum(got), math.fsum(values), scale), name
        else:  # Of a gauge the extremes and the mean, not how often it was set.
            mean = math.fsum(values) / len(values)
            assert scenarios.is_near(math.fsum(got) / len(got), mean, scale), name


@pytest.mark.parametrize("seed", range(3))
def test_histogram_objects_carry_exact_statistics(probe, tmp_path, seed):
    good = scenarios.metrics(seed, 120)
    file = tmp_path / "metrics.json"
    result = probe.record(
        {"metrics": good},
        ENVIRONMENT | {"SPILLWAY_METRICS": "emf:file", "SPILLWAY_METRICS_FILE": str(file),
                       "SPILLWAY_EMF_HISTOGRAM_OBJECT": "true"})
    assert result["stats"]["metrics"]["delivered"] == scenarios.count_of(good), result
    found = targets(check(line, emf_schema.HISTOGRAM_TARGET) for line in file.read_text().splitlines())
    for metric in good:
        values, name = metric["values"], metric["name"]
        got = found[scenarios.key_of(metric)]
        if metric["kind"] == "counter" or len(values) == 1:
            assert scenarios.is_near(math.fsum(got), math.fsum(values), max(map(abs, values))), name
            continue
        assert sum(part["Count"] for part in got) == len(values), name
        assert min(part["Min"] for part in got) == min(values), name
        assert max(part["Max"] for part in got) == max(values), name
        total = math.fsum(part["Sum"] for part in got)
        assert scenarios.is_near(total, math.fsum(values), max(map(abs, values))), name
        for part in got:
            if "Values" in part:
                assert len(part["Values"]) == len(part["Counts"]) and sum(part["Counts"]) == part["Count"], name


def test_documents_for_log_events_are_the_same(probe):
    good = scenarios.metrics(9, 60)
    requests, result = probe.bodies(
        {"metrics": good},
        ENVIRONMENT | {"SPILLWAY_METRICS": "emf:logs", "AWS_EMF_LOG_GROUP_NAME": "/metrics"})
    assert result["stats"]["metrics"]["delivered"] == scenarios.count_of(good), result
    bodies = [parse(request["body"]) for request in requests]
    assert {body["logGroupName"] for body in bodies} == {"/metrics"}
    events = [event for body in bodies for event in body["logEvents"]]
    documents = [check(event["message"], emf_schema.ANY_TARGET) for event in events]
    assert [event["timestamp"] for event in events] == [d["_aws"]["Timestamp"] for d in documents]
    assert set(targets(documents)) == {scenarios.key_of(metric) for metric in good}


def test_standard_output_is_documents_and_log_lines_only(probe):
    """The default: what an agent or Lambda reads line by line."""
    metrics = [{"kind": "counter", "name": "Requests", "unit": "Count", "values": [1, 2, 3]}]
    environment = {k: v for k, v in ENVIRONMENT.items() if k != "SPILLWAY_LOGS"}
    *lines, result = probe.run(
        "record", json.dumps({"metrics": metrics, "logs": ["one\ntwo", "_aws"]}), environment).splitlines()
    assert parse(result)["stats"]["logs"]["delivered"] == 2
    parsed = [parse(line) for line in lines]
    documents = [check(line) for line, entry in zip(lines, parsed) if "_aws" in entry]
    assert [document["Requests"] for document in documents] == [6]
    assert [entry["text"] for entry in parsed if "_aws" not in entry] == ["one\ntwo", "_aws"]
