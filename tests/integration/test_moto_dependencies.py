# SPDX-License-Identifier: Apache-2.0
"""What a service finds out about others through moto: whether a table can be used, and where a service is."""

import subprocess

import pytest


@pytest.fixture
def ask(moto, build):
    def run(*arguments, **more):
        program = build / "tests" / "integration_dependencies"
        return subprocess.run(
            [program, *arguments], env=moto.environment(**more), capture_output=True, text=True, timeout=60
        )

    return run


def test_a_table_that_is_there_passes(moto, ask):
    moto.client("dynamodb").create_table(
        TableName="health-orders",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    assert ask("table", "health-orders").stdout.split("\n")[0] == "pass"


def test_a_table_that_is_not_there_fails_and_says_so(ask):
    status, output = ask("table", "health-nothing").stdout.split("\n")[:2]
    assert status == "fail"
    assert "health-nothing" in output and "ResourceNotFoundException" in output


def test_a_wrong_secret_fails_and_is_not_told(ask):
    status, output = ask("table", "health-orders", AWS_SECRET_ACCESS_KEY="wrong-canary").stdout.split("\n")[:2]
    assert status == "fail"
    assert "canary" not in output


def test_instances_of_cloud_map(moto, ask):
    cloud_map = moto.client("servicediscovery")
    cloud_map.create_http_namespace(Name="shop")
    namespace = next(one["Id"] for one in cloud_map.list_namespaces()["Namespaces"] if one["Name"] == "shop")
    service = cloud_map.create_service(Name="orders", NamespaceId=namespace)["Service"]["Id"]
    for number, zone in ((7, "eu-west-1a"), (8, "eu-west-1b")):
        cloud_map.register_instance(
            ServiceId=service,
            InstanceId=f"i-{number}",
            Attributes={
                "AWS_INSTANCE_IPV4": f"10.0.0.{number}",
                "AWS_INSTANCE_PORT": "8080",
                "AVAILABILITY_ZONE": zone,
            },
        )
    found = ask("discover", "shop", "orders")
    assert sorted(found.stdout.split("\n")) == [
        "",
        "http://10.0.0.7:8080 eu-west-1a",
        "http://10.0.0.8:8080 eu-west-1b",
    ], found.stderr
    missing = ask("discover", "shop", "nobody")
    assert missing.returncode == 1
    assert "ServiceNotFound" in missing.stderr
