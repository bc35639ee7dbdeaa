# SPDX-License-Identifier: Apache-2.0
"""Alerts through moto's SNS into a queue: signed, one of each kind of error, readable, without secrets."""

import json
import subprocess

import pytest

TIMES = 50


@pytest.mark.parametrize("fifo", [False, True], ids=["standard", "fifo"])
def test_each_kind_of_error_is_one_message(moto, build, fifo):
    suffix, attributes = (".fifo", {"FifoTopic": "true"}) if fifo else ("", {})
    topic = moto.client("sns").create_topic(Name="errors" + suffix, Attributes=attributes)["TopicArn"]
    sqs = moto.client("sqs")
    queue = sqs.create_queue(
        QueueName="errors" + suffix, Attributes={"FifoQueue": "true"} if fifo else {}
    )["QueueUrl"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    moto.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue_arn)

    environment = moto.environment(SPILLWAY_METRICS="none", SPILLWAY_LOGS="none")
    subprocess.run(
        [build / "tests" / "integration_alerts", topic, str(TIMES)], env=environment, check=True, timeout=60
    )

    received = []
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            received.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert sorted(one["Subject"] for one in received) == [
        "shop: 500 (unmatched)",
        "shop: 500 GET /orders/{id}",
        "shop: 500 GET /pay",
    ]
    fingerprints = {one["MessageAttributes"]["fingerprint"]["Value"] for one in received}
    assert len(fingerprints) == 3
    for one in received:
        lines = one["Message"].splitlines()
        assert "Exception: std::runtime_error" in lines
        assert "Message: [redacted] is not to be charged" in lines
        assert any(line.startswith("Trace: 1-") for line in lines)
