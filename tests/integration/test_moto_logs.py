# SPDX-License-Identifier: Apache-2.0
"""PutLogEvents to moto: group and stream are made, and every event arrives whole and in order."""

import json
import random

from conftest import is_settled

GROUP = "/probe/logs"


def events_of(moto, group, stream):
    """All events of a stream, in the service's order."""
    client = moto.client("logs")
    events, token = [], None
    while True:
        more = {"nextToken": token} if token else {}
        page = client.get_log_events(
            logGroupName=group, logStreamName=stream, startFromHead=True, **more)
        events += page["events"]
        if page["nextForwardToken"] == token:
            return events
        token = page["nextForwardToken"]


def record(moto, probe, stream, texts, threads=1):
    result = probe.record(
        {"threads": threads, "logs": texts},
        # Rings that hold it all: a full one drops, and nothing paces the threads.
        moto.environment(SPILLWAY_LOG_GROUP=GROUP, SPILLWAY_LOG_STREAM=stream, SPILLWAY_RING_BYTES=str(8 << 20)))
    assert result["stats"]["logs"]["delivered"] == len(texts), result
    assert is_settled(result["stats"]["logs"])
    return events_of(moto, GROUP, stream)


def test_missing_group_and_stream_are_made(moto, probe):
    group, stream = "/probe/made/now", "pod [1]/é"
    assert moto.client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"] == []
    result = probe.record(
        {"logs": ["first"]},
        moto.environment(SPILLWAY_LOG_GROUP=group, SPILLWAY_LOG_STREAM=stream))
    assert result["stats"]["logs"]["delivered"] == 1, result
    # Put, refused; create stream, refused; create group; create stream; put.
    assert result["stats"]["delivery"]["requests"] == 5
    assert len(events_of(moto, group, stream)) == 1


def test_an_existing_stream_costs_one_request(moto, probe):
    client = moto.client("logs")
    client.create_log_group(logGroupName="/probe/there")
    client.create_log_stream(logGroupName="/probe/there", logStreamName="s")
    result = probe.record(
        {"logs": ["first"]},
        moto.environment(SPILLWAY_LOG_GROUP="/probe/there", SPILLWAY_LOG_STREAM="s"))
    assert result["stats"]["delivery"]["requests"] == 1
    assert len(events_of(moto, "/probe/there", "s")) == 1


AWKWARD = [
    "",
    " ",
    "plain",
    'quotes " and \\ and / and \\" and \\u0041',
    "line\nfeed, carriage\rreturn, tab\t, crlf\r\n",
    "".join(map(chr, range(0x20))) + "\x7f",
    "".join(map(chr, range(0x80, 0xA0))),
    "grüße, こんにちは, 👩‍👩‍👧, e\u0301",
    "\u2028\u2029\u202e\u2066\ufeff\ufffd\U0010ffff",
    '{"_aws":{"Timestamp":1}}',
    "]}],\"logEvents\":[",
    "&<>'%s%n${jndi:ldap://x}",
]


def test_awkward_texts_arrive_as_they_were(moto, probe):
    events = record(moto, probe, "awkward", AWKWARD)
    assert [json.loads(event["message"])["text"] for event in events] == AWKWARD


def test_messages_of_hundreds_of_kilobytes_arrive_whole(moto, probe):
    random_ = random.Random(7)
    alphabet = 'abc "\\\n\x01é漢👍'
    texts = ["".join(random_.choices(alphabet, k=20_000)) for _ in range(3)]
    texts.append("x" * 200_000)
    texts.append("\x01" * 100_000)  # Six bytes each, and twelve in the request.
    texts.append("y" * 1_000_000)
    events = record(moto, probe, "large", texts)
    messages = [json.loads(event["message"]) for event in events]
    assert all("truncated" not in message for message in messages)
    assert [message["text"] == text for message, text in zip(messages, texts)] == [True] * len(texts)
    assert len(messages) == len(texts)


def test_thousands_of_events_of_several_threads_keep_each_threads_order(moto, probe):
    random_ = random.Random(11)
    threads, count = 4, 8000
    texts = [f"{n} " + "z" * random_.randrange(300) for n in range(count)]
    events = record(moto, probe, "many", texts, threads)
    messages = [json.loads(event["message"]) for event in events]
    by_thread = {t: [] for t in range(threads)}
    for message in messages:
        by_thread[message["n"] % threads].append(message["n"])
        assert message["text"] == texts[message["n"]]
    for thread, numbers in by_thread.items():
        assert numbers == list(range(thread, count, threads))
    times = [event["timestamp"] for event in events]
    assert times == sorted(times)
