# SPDX-License-Identifier: Apache-2.0
"""moto verifies signatures: a wrong key delivers nothing, says why, and every record is counted. It is
STS too: roles are assumed there, by keys and by a web identity."""

import json

import pytest
from conftest import Moto, is_settled

SCENARIO = {
    "metrics": [{"kind": "counter", "name": "Refused", "unit": "Count", "values": [1, 2, 3]}],
    "logs": ["one", "two"],
    "traces": [{"name": "work", "children": [{"name": "child"}]}],
}
DESTINATIONS = {"put-metric-data": "metrics", "put-log-events": "logs", "put-trace-segments": "spans"}


# Not until the engine ends, which is what happens by default.
LIMITED = {"SPILLWAY_ATTEMPTS_MAX": "4"}


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
    environment = moto.environment(SPILLWAY_METRIC_NAMESPACE=name, SPILLWAY_LOG_GROUP=name, **LIMITED)
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


# ---- Roles ----

ALLOW_ALL = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
)


@pytest.fixture(scope="module")
def roles(moto):
    """Two roles that may do everything: their ARNs."""
    iam = moto.client("iam")
    arns = []
    for name in ("inner", "outer"):
        arns.append(
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=ALLOW_ALL)["Role"]["Arn"]
        )
        iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=ALLOW_ALL)
    return arns


def everything_arrives(moto, probe, name, environment):
    result = probe.record(
        SCENARIO, environment | {"SPILLWAY_METRIC_NAMESPACE": name, "SPILLWAY_LOG_GROUP": name}
    )
    assert result["diagnostics"] == []
    for signal in DESTINATIONS.values():
        stats = result["stats"][signal]
        assert stats["delivered"] == stats["recorded"] > 0 and is_settled(stats)
    metrics, groups = everything_in(moto, name, name)
    assert len(metrics) == 1 and len(groups) == 1


def without_keys(moto):
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    kept = {k: v for k, v in moto.environment().items() if k not in keys}
    return kept | {"AWS_EC2_METADATA_DISABLED": "true"}


def test_a_role_of_a_role_is_assumed_by_the_profile(moto, probe, roles, tmp_path):
    inner, outer = roles
    config = tmp_path / "config"
    config.write_text(
        f"[profile app]\nrole_arn = {outer}\nsource_profile = middle\nexternal_id = shop:1\n"
        f"duration_seconds = 900\nrole_session_name = shop\n"
        f"[profile middle]\nrole_arn = {inner}\nsource_profile = base\n"
        f"[profile base]\naws_access_key_id = {moto.key_id}\naws_secret_access_key = {moto.secret}\n"
    )
    more = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "app"}
    everything_arrives(moto, probe, "/roles/profile", without_keys(moto) | more)


def test_a_program_prints_the_keys(moto, probe, tmp_path):
    document = {"Version": 1, "AccessKeyId": moto.key_id, "SecretAccessKey": moto.secret}
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(document))
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = cat '{keys}'\n")
    more = {"AWS_CONFIG_FILE": str(config)}
    everything_arrives(moto, probe, "/roles/process", without_keys(moto) | more)


def test_a_wrong_source_of_a_role_says_what_sts_said(moto, probe, roles, tmp_path):
    config = tmp_path / "config"
    config.write_text(
        f"[default]\nrole_arn = {roles[0]}\nsource_profile = default\n"
        f"aws_access_key_id = {moto.key_id}\naws_secret_access_key = not-the-secret-canary\n"
    )
    name = "/roles/wrong"
    environment = without_keys(moto) | {
        "AWS_CONFIG_FILE": str(config),
        "SPILLWAY_METRIC_NAMESPACE": name,
        "SPILLWAY_LOG_GROUP": name,
        **LIMITED,
    }
    result = probe.record(SCENARIO, environment)
    for signal in DESTINATIONS.values():
        stats = result["stats"][signal]
        assert stats["dropped"] == {"unauthorised": stats["recorded"]} and is_settled(stats)
    assert any("SignatureDoesNotMatch" in text for text in result["diagnostics"])
    assert all("canary" not in text for text in result["diagnostics"])


# ---- What has no signature, or the keys of nobody: a moto that asks for none ----


@pytest.fixture(scope="module")
def open_moto(serve):
    return Moto(serve, checks=False)


def test_a_web_identity_becomes_a_role(open_moto, probe, tmp_path):
    role = open_moto.client("iam").create_role(
        RoleName="pod", AssumeRolePolicyDocument=ALLOW_ALL)["Role"]["Arn"]
    token = tmp_path / "token"
    token.write_text("header.payload.signature\n")
    more = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": role}
    everything_arrives(open_moto, probe, "/roles/web", without_keys(open_moto) | more)


def test_an_instance_has_a_role(open_moto, probe):
    more = {
        "AWS_EC2_METADATA_DISABLED": "false",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": open_moto.endpoint,
    }
    everything_arrives(open_moto, probe, "/roles/instance", without_keys(open_moto) | more)
