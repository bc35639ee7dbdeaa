# SPDX-License-Identifier: Apache-2.0
"""One script of requests and targets, run by our sampler and by the X-Ray SDK for Python: every decision is the same.

Each side has a service of its own that answers alike what is asked alike. Counts differ in one way, which AWS's worked
example decides in our favour: the SDK leaves what it borrowed out of SampledCount.
"""

import collections
import json
import random

import pytest
from aws_xray_sdk.core.sampling import connector, rule_poller, sampler as sdk_sampler
from aws_xray_sdk.core.sampling.local import reservoir as sdk_local_reservoir
from sampling_service import SamplingService

START = 1_795_222_800


def rule(name, priority, rate, reservoir, host="*", method="*", path="*", service="*"):
    return {"RuleName": name, "RuleARN": f"arn:aws:xray:eu-west-1:1:sampling-rule/{name}", "ResourceARN": "*",
            "Priority": priority, "FixedRate": rate, "ReservoirSize": reservoir, "ServiceName": service,
            "ServiceType": "*", "Host": host, "HTTPMethod": method, "URLPath": path, "Version": 1, "Attributes": {}}


RULES = [
    rule("writes", 10, 0.5, 3, method="P*T"),
    rule("health", 5, 0.0, 0, path="/health?"),
    rule("shop", 20, 0.2, 5, host="*.SHOP.example", path="/api/*/orders"),
    rule("other-service", 1, 1.0, 50, service="billing*"),
    rule("tie-b", 30, 0.0, 0, path="/tie"),
    rule("tie-a", 30, 1.0, 0, path="/tie"),
    rule("Default", 10_000, 0.05, 1),
]


class SdkSampler:
    """The SDK's sampler with its pollers called by hand, in the test's time."""

    def __init__(self, port, monkeypatch):
        self.now = START
        self.draw = 0.0
        clock = type("Time", (), {"time": lambda _: self.now, "sleep": lambda _, seconds: None})()
        for module in (sdk_sampler, connector, rule_poller, sdk_local_reservoir):
            monkeypatch.setattr(module, "time", clock)
        self.sampler = sdk_sampler.DefaultSampler()
        self.sampler._started = True  # its threads stay away
        self.sampler._random = self
        self.sampler._local_sampler._random = self
        self.sampler._connector.setup_xray_client("127.0.0.1", port, None)
        self.woken = False
        self.sampler._target_poller._rule_poller = self

    def random(self):
        return self.draw

    def wake_up(self):
        self.woken = True

    def poll(self, now):
        self.now = now
        if self.woken or (now - START) % 300 == 0:
            self.woken = False
            self.sampler._rule_poller._refresh_cache()
        if now != START:
            self.sampler._target_poller._do_work()

    def decide(self, now, request):
        self.now, self.draw = now, request["draw"]
        given = {key: request[key] for key in ("host", "method", "path") if request[key]}
        return bool(self.sampler.should_trace(given | {"service": "orders"}))


def requests_of(generator, count):
    hosts = ["www.shop.example", "WWW.shop.EXAMPLE", "shop.example", "elsewhere", ""]
    paths = ["/", "/health", "/healthz", "/api/v1/orders", "/API/v2/x/orders", "/api/orders", "/tie", ""]
    methods = ["GET", "PUT", "POST", "post", "PATCH", ""]
    return [{"host": generator.choice(hosts), "method": generator.choice(methods), "path": generator.choice(paths),
             "draw": generator.random()} for _ in range(count)]


def totals(reports):
    sums = collections.defaultdict(collections.Counter)
    for report in reports:
        for key in ("RequestCount", "SampledCount", "BorrowCount"):
            sums[report["RuleName"]][key] += report[key]
    return sums


@pytest.fixture
def services():
    pair = [SamplingService(RULES), SamplingService(RULES)]
    yield pair
    for service in pair:
        service.stop()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_decision_is_the_sdks(probe, services, monkeypatch, seed):
    ours, theirs = services
    generator = random.Random(seed)
    # Ten minutes in seconds: bursts, quiet times, a rule that changes.
    script = []
    for second in range(620):
        now = START + second
        if second % 10 == 0:
            script.append({"at": now, "do": "poll"})
        if second == 205:
            script.append({"at": now, "do": "change"})
        requests = requests_of(generator, generator.choice([0, 1, 3, 20, 60]))
        if requests:
            script.append({"at": now, "requests": requests})

    def steer(service, step):
        service.now = step["at"]
        if step.get("do") == "change":
            service.change(rule("writes", 10, 0.9, 1, method="P*T"), step["at"])

    sdk = SdkSampler(theirs.port, monkeypatch)
    expected = []
    for step in script:
        steer(theirs, step)
        if step.get("do") == "poll":
            sdk.poll(step["at"])
        expected += [sdk.decide(step["at"], request) for request in step.get("requests", [])]

    process = probe.start(f"sampling=http://127.0.0.1:{ours.port}")
    decisions = []
    for step in script:
        steer(ours, step)
        decisions += process.ask(step) or []
    process.close()

    assert ours.errors == [] and theirs.errors == []
    assert len(decisions) == len(expected) > 5000
    assert [d["sampled"] for d in decisions] == expected
    assert 0.1 < sum(expected) / len(expected) < 0.9

    mine, sdks = totals(ours.reports), totals(theirs.reports)
    assert set(mine) == set(sdks) >= {"writes", "health", "shop", "tie-a", "Default"}
    assert "tie-b" not in mine and "other-service" not in mine
    for name in mine:
        assert mine[name]["RequestCount"] == sdks[name]["RequestCount"], name
        assert mine[name]["BorrowCount"] == sdks[name]["BorrowCount"], name
        assert mine[name]["SampledCount"] == sdks[name]["SampledCount"] + sdks[name]["BorrowCount"], name
    assert sum(counts["BorrowCount"] for counts in mine.values()) > 10
    assert len(ours.clients) == 1 and ours.clients != theirs.clients


def test_rules_through_the_daemons_proxy(probe, xray_daemon):
    """The daemon signs the call for us and our receiver, which has no rules, takes it."""
    xray_daemon.reset()
    host, port = xray_daemon.tcp_address
    process = probe.start(f"sampling=http://{host}:{port}")
    process.ask({"at": START, "do": "poll"})
    (decision,) = process.ask({"at": START, "requests": [{"host": "", "method": "", "path": "", "draw": 0.01}]})
    said = process.ask({"at": START, "do": "say"})
    process.close()
    assert said == [] and decision == {"sampled": True, "rule": ""}
