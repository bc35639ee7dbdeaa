# SPDX-License-Identifier: Apache-2.0
"""Servers on free ports that stop with the tests, and the probe: the service that records for them."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import boto3
import botocore.config
import pytest

REGION = "eu-west-1"


def pytest_addoption(parser):
    parser.addoption("--build", default="build/release", help="folder with the built programs")


def _free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A program that serves until stop(), with its output in a file that failing tests show."""

    def __init__(self, name, command, log, environment=None):
        self.name = name
        self.log = pathlib.Path(log)
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment or _clean_environment(),
                cwd=self.log.parent,  # DynamoDB Local leaves a file where it starts.
            )

    def wait_until(self, is_up, seconds=60):
        deadline = time.monotonic() + seconds
        while not is_up():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{self.name} does not serve:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self, characters=6000):
        return self.log.read_text(errors="replace")[-characters:]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _clean_environment(**more):
    """Of the caller's variables nothing that sets up AWS or Spillway."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SPILLWAY_", "OTEL_"))}
    nowhere = {"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
    return kept | nowhere | more


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


# ---- Logs of servers, shown when a test fails ----

_servers = []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        report.sections += [(f"log of {server.name}", server.tail()) for server in _servers]


@pytest.fixture(scope="session")
def serve(tmp_path_factory):
    """serve(name, command, environment=None): a Server that stops with the session."""
    folder = tmp_path_factory.mktemp("servers")

    def start(name, command, environment=None):
        server = Server(name, command, folder / f"{name}-{len(_servers)}.log", environment)
        _servers.append(server)
        return server

    yield start
    for server in reversed(_servers):
        server.stop()
    _servers.clear()


# ---- moto, with signatures and permissions checked ----


class Moto:
    """A moto server that knows one user; every request after the user was made must be signed, unless it is not to check."""

    # The three calls that make the user and its key go in without a signature.
    OPEN_REQUESTS = 3

    def __init__(self, serve, checks=True):
        port = _free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        checked = {"INITIAL_NO_AUTH_ACTION_COUNT": str(self.OPEN_REQUESTS)} if checks else {}
        environment = _clean_environment(**checked)
        server = serve(
            "moto",
            [pathlib.Path(sys.executable).parent / "moto_server", "-H", "127.0.0.1", "-p", port],
            environment,
        )
        server.wait_until(lambda: _answers(self.endpoint + "/moto-api/"))
        iam = self._client("iam", "AKIDUNKNOWN", "unknown")
        iam.create_user(UserName="probe")
        key = iam.create_access_key(UserName="probe")["AccessKey"]
        self.key_id, self.secret = key["AccessKeyId"], key["SecretAccessKey"]
        allow_all = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
        }
        iam.put_user_policy(
            UserName="probe", PolicyName="all", PolicyDocument=json.dumps(allow_all)
        )

    def client(self, service):
        return self._client(service, self.key_id, self.secret)

    def _client(self, service, key_id, secret):
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            # moto answers 500 to a compressed JSON body and 404 to CBOR.
            config=botocore.config.Config(
                retries={"max_attempts": 1}, disable_request_compression=True
            ),
        )

    def environment(self, **more):
        """Sends all three signals of a probe here."""
        return {
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DISABLE_REQUEST_COMPRESSION": "true",
            "SPILLWAY_SERVICE": "probe",
            "SPILLWAY_METRICS": "put-metric-data",
            "SPILLWAY_LOGS": "put-log-events",
            "SPILLWAY_TRACES": "put-trace-segments",
            "SPILLWAY_TRACE_SAMPLE_RATE": "1",
            # What is recorded before the first flush is one interval's worth, however slow the machine.
            "SPILLWAY_METRIC_INTERVAL": "60m",
        } | more


@pytest.fixture(scope="session")
def moto(serve):
    return Moto(serve)


# ---- AWS's X-Ray daemon, with `spillway local` behind it ----


class XrayDaemon:
    """The daemon signs what it is sent by UDP and posts it to a receiver that verifies and keeps it."""

    KEY = {"AWS_ACCESS_KEY_ID": "AKIDDAEMON", "AWS_SECRET_ACCESS_KEY": "daemon-secret"}

    def __init__(self, serve, build, program, folder):
        port_file = folder / "ports.json"
        key_id, secret = self.KEY.values()
        receiver = serve("spillway local", [
            build / "tools" / "spillway", "local", "--port", "0", "--udp-port", "0",
            "--access-key", key_id, "--secret", secret, "--port-file", port_file])
        receiver.wait_until(lambda: port_file.exists() and "}" in port_file.read_text())
        self.receiver = json.loads(port_file.read_text())["endpoint"]

        self.port = _free_port(socket.SOCK_DGRAM)
        tcp_port = _free_port()
        self.tcp_address = ("127.0.0.1", tcp_port)
        self.address = f"127.0.0.1:{self.port}"
        config = folder / "cfg.yaml"
        # The receiver's address can be given in this file only; there is no flag for it.
        config.write_text(
            f'Version: 2\nEndpoint: "{self.receiver}"\nRegion: "{REGION}"\nLocalMode: true\nTotalBufferSizeMB: 64\n'
            f'Socket:\n  UDPAddress: "{self.address}"\n  TCPAddress: "127.0.0.1:{tcp_port}"\n'
            'Logging:\n  LogLevel: "info"\n')
        self.server = serve(
            "xray", [program, "-c", config, "-o", "-n", REGION], _clean_environment(**self.KEY))
        self.server.wait_until(lambda: "Starting proxy http server" in self.server.tail())

    def page(self, name):
        with urllib.request.urlopen(f"{self.receiver}/_spillway/{name}", timeout=10) as answer:
            return json.load(answer)

    def reset(self):
        urllib.request.urlopen(
            urllib.request.Request(f"{self.receiver}/_spillway/reset", method="POST"), timeout=10)

    def lost_in_the_kernel(self):
        """Datagrams that found the daemon's socket buffer full."""
        lines = pathlib.Path("/proc/net/udp").read_text().splitlines()[1:]
        mine = [line.split() for line in lines if line.split()[1].endswith(f":{self.port:04X}")]
        return sum(int(columns[-1]) for columns in mine)

    def wait_for_spans(self, count, seconds=20):
        """Waits until the receiver has so many segments and subsegments; returns how many it has."""
        deadline = time.monotonic() + seconds
        have = 0
        while have < count and time.monotonic() < deadline:
            have = self.page("traces?limit=0")["segments"]["https"]
            time.sleep(0.1)
        return have


@pytest.fixture(scope="session")
def xray_daemon(serve, build, tmp_path_factory):
    program = build.parent / "xray-daemon" / "xray"
    assert program.exists(), f"{program} is missing: tools/setup test builds it"
    return XrayDaemon(serve, build, program, tmp_path_factory.mktemp("xray"))


# ---- The probe ----


class Probe:
    def __init__(self, program):
        self.program = program

    def record(self, scenario, environment):
        """Runs a scenario and returns {"stats", "diagnostics", "traces"}."""
        return json.loads(self.run("record", json.dumps(scenario), environment).splitlines()[-1])

    def bodies(self, scenario, environment):
        """Runs a scenario without a network: (requests, the result of record())."""
        lines = self.run("bodies", json.dumps(scenario), environment).splitlines()
        *requests, result = [json.loads(line) for line in lines]
        return requests, result

    def sign(self, descriptions):
        """The Authorization header of each request."""
        lines = self.run("sign", "\n".join(json.dumps(d) for d in descriptions), {}).splitlines()
        return [json.loads(line) for line in lines]

    def start(self, command):
        """A probe that answers one line with one line until close()."""
        return ProbeProcess([self.program, command])

    def run(self, command, text, environment):
        done = subprocess.run(
            [self.program, command],
            input=text.encode(),
            capture_output=True,
            env=_clean_environment(**environment),
            timeout=120,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode()


class ProbeProcess:
    def __init__(self, command):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_clean_environment(), text=True)

    def ask(self, question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(30) == 0


@pytest.fixture(scope="session")
def build(request):
    return pathlib.Path(request.config.getoption("--build")).resolve()


@pytest.fixture(scope="session")
def probe(build):
    program = build / "tests" / "integration_probe"
    assert program.exists(), f"{program} is missing: build the target integration_probe"
    return Probe(program)


def is_settled(signal):
    """Whether a signal's account is balanced with nothing under way."""
    dropped = sum(signal["dropped"].values())
    return signal["held"] == 0 and signal["residue"] == 0 and (
        signal["recorded"] == signal["delivered"] + dropped
    )
