# SPDX-License-Identifier: Apache-2.0
"""PutMetricData to moto, which verifies the signature, read back by boto3."""

import datetime
import math
import random

import pytest
from conftest import is_settled


def read_back(moto, namespace, metric):
    """(SampleCount, Sum, Minimum, Maximum) of a metric over the last hours, whatever minutes it fell into."""
    now = datetime.datetime.now(datetime.timezone.utc)
    dimensions = {"Service": "probe"} | metric.get("dimensions", {})
    points = moto.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=metric["name"],
        Dimensions=[{"Name": k, "Value": v} for k, v in dimensions.items()],
        StartTime=now - datetime.timedelta(hours=1),
        EndTime=now + datetime.timedelta(hours=1),
        Period=60,
        Unit=metric["unit"],
        Statistics=["SampleCount", "Sum", "Minimum", "Maximum"],
    )["Datapoints"]
    assert points, f"{metric['name']} {dimensions} did not arrive"
    return (
        sum(point["SampleCount"] for point in points),
        math.fsum(point["Sum"] for point in points),
        min(point["Minimum"] for point in points),
        max(point["Maximum"] for point in points),
    )


def test_statistics_of_every_dimension_set_are_exact(moto, probe):
    random_ = random.Random(20261121)
    # Multiples of 1/8: sums of them are exact in any order, so that equality can be asked for.
    eighths = lambda n, top: [random_.randrange(top) / 8 for _ in range(n)]
    metrics = []
    for route in ("/orders", "/carts"):
        dimensions = {"Route": route}
        metrics.append(
            {"kind": "counter", "name": "Requests", "unit": "Count", "dimensions": dimensions,
             "values": eighths(500, 80)})
        metrics.append(
            {"kind": "histogram", "name": "Latency", "unit": "Milliseconds",
             "dimensions": dimensions | {"Stage": "prod"}, "values": eighths(400, 8000)})
        metrics.append(
            {"kind": "gauge", "name": "Depth", "unit": "None", "dimensions": dimensions,
             "values": [value - 100 for value in eighths(60, 1600)]})
    namespace = "Exact/Shop"
    result = probe.record(
        {"threads": 4, "metrics": metrics},
        moto.environment(SPILLWAY_METRIC_NAMESPACE=namespace))

    recorded = sum(len(metric["values"]) for metric in metrics)
    assert result["stats"]["metrics"]["delivered"] == recorded, result["diagnostics"]
    assert is_settled(result["stats"]["metrics"])
    for metric in metrics:
        count, total, low, high = read_back(moto, namespace, metric)
        values = metric["values"]
        assert total == math.fsum(values), metric["name"]
        if metric["kind"] != "counter":  # A counter's datum is its sum.
            assert count == len(values), metric["name"]
            assert (low, high) == (min(values), max(values)), metric["name"]
