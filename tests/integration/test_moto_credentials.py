# SPDX-License-Identifier: Apache-2.0
"""moto verifies signatures: a wrong key delivers nothing, says why, and every record is counted."""

import pytest
from conftest import is_settled

SCENARIO = {
    "metrics": [{"kind": "counter", "name": "Refused", "unit": "Count", "values": [1, 2, 3]}],
    "logs": ["one", "two"],
    "traces": [{"name": "work", "children": [{"name": "child"}]}],
}
DESTINATIONS = {"put-metric-data": "metrics", "put-log-events": "logs", "put-trace-segments": "spans"}


def everything_in(moto, namespace, group):
    return (
        moto.client("cloudwatch").list_metrics(Namespace=namespace)["Metrics"],
        moto.client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"],
    )


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "not-the-secret-canary"}, "SignatureDoesNotMatch"),
        ({"AWS_ACCESS_KEY_ID": "AKIDNOBODY"}, "InvalidClientTokenId"),
        ({"AWS_SESSION_TOKEN": "a-token-canary"}, "InvalidClientTokenId"),
    ],
    ids=["secret", "key", "token"],
)
def test_a_wrong_key_is_refused_reported_and_counted(moto, probe, wrong, code):
    name = "/refused/" + next(iter(wrong))
    environment = moto.environment(SPILLWAY_METRIC_NAMESPACE=name, SPILLWAY_LOG_GROUP=name)
    result = probe.record(SCENARIO, environment | wrong)
    for destination, signal in DESTINATIONS.items():
        stats = result["stats"][signal]
        assert stats["delivered"] == 0
        assert stats["dropped"] == {"unauthorised": stats["recorded"]}
        assert stats["recorded"] > 0 and is_settled(stats)
        said = [text for text in result["diagnostics"] if destination in text]
        assert any("403" in text and (code) in text for text in said), result["diagnostics"]
    assert all("canary" not in text for text in result["diagnostics"])
    assert everything_in(moto, name, name) == ([], [])


def test_the_right_key_is_accepted_for_the_same(moto, probe):
    name = "/refused/not"
    environment = moto.environment(SPILLWAY_METRIC_NAMESPACE=name, SPILLWAY_LOG_GROUP=name)
    result = probe.record(SCENARIO, environment)
    assert result["diagnostics"] == []
    for signal in DESTINATIONS.values():
        stats = result["stats"][signal]
        assert stats["delivered"] == stats["recorded"] > 0
    metrics, groups = everything_in(moto, name, name)
    assert len(metrics) == 1 and len(groups) == 1
