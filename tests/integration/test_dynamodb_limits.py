# SPDX-License-Identifier: Apache-2.0
"""Processes that share a limit in DynamoDB Local, with kills and lost answers: what they admit, by the bytes that they
wrote, against the limit and the table."""

import http.client
import http.server
import itertools
import json
import subprocess
import threading
import time

import boto3
import pytest
from conftest import REGION, _clean_environment, _free_port

KEY = {"AWS_ACCESS_KEY_ID": "AKIDLIMITS", "AWS_SECRET_ACCESS_KEY": "limits-secret", "AWS_REGION": REGION}
ALGORITHMS = ["fixed_window", "token_bucket", "sliding_window"]
_tables = itertools.count()


class DynamoDb:
    def __init__(self, serve, build):
        folder = build.parent / "dynamodb-local" / "lib"
        assert folder.exists(), f"{folder} is missing: tools/setup test installs it"
        self.port = _free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        server = serve("dynamodb", [
            "java", "-Xmx256m", f"-Djava.library.path={folder}", "-cp", f"{folder}/*",
            "com.amazonaws.services.dynamodbv2.local.main.ServerRunner", "-inMemory", "-port", self.port])
        self.client = boto3.client(
            "dynamodb", region_name=REGION, endpoint_url=self.endpoint,
            aws_access_key_id=KEY["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEY["AWS_SECRET_ACCESS_KEY"])
        server.wait_until(self._is_up)

    def _is_up(self):
        try:
            self.client.list_tables()
            return True
        except Exception:  # Any way of not being there yet.
            return False

    def taken(self, table):
        """Permits that count as taken, over all of the table's items."""
        return sum(int(item["taken"]["N"]) for item in self.client.scan(TableName=table)["Items"])


@pytest.fixture(scope="module")
def dynamodb(serve, build):
    return DynamoDb(serve, build)


class LossyProxy:
    """Passes requests on and swallows every n-th answer to a take, the writes being carried out."""

    def __init__(self, port, every):
        self.swallowed_permits = 0
        self.swallowed = 0
        lock = threading.Lock()
        takes = itertools.count(1)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                upstream = http.client.HTTPConnection("127.0.0.1", port)
                headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
                upstream.request("POST", self.path, body, headers)
                answer = upstream.getresponse()
                text = answer.read()
                upstream.close()
                request = json.loads(body)
                update = request.get("UpdateExpression", "")
                with lock:
                    if ("ADD" in update or "+" in update or ":taken" in update or "SET fresh_at = :fresh_at" in update
                            ) and next(takes) % every == 0:
                        outer.swallowed += 1
                        if answer.status == 200:
                            outer.swallowed_permits += permits_of(request)
                        self.close_connection = True
                        return
                self.send_response(answer.status)
                for name in ("Content-Type", "x-amzn-RequestId"):
                    if answer.headers[name]:
                        self.send_header(name, answer.headers[name])
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def permits_of(request):
    """What a take takes. Requests of a bucket ask for one permit at a time here, so its first one does too."""
    values = {name: int(value["N"]) for name, value in request["ExpressionAttributeValues"].items()}
    if ":permits" in values:
        return values[":permits"]
    if ":taken" in values:
        return values[":taken"]
    return 1


class Process:
    def __init__(self, build, log, dynamodb_endpoint, table, algorithm, permits, window_ms, lease, threads, denials):
        self.log = log
        self.process = subprocess.Popen(
            [str(a) for a in (build / "tests" / "integration_limiter", table, algorithm, permits, window_ms, lease,
                              threads, denials, log, "create")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=_clean_environment(AWS_ENDPOINT_URL_DYNAMODB=dynamodb_endpoint, **KEY))

    def wait_ready(self):
        line = self.process.stdout.readline()
        assert line == "ready\n", self.process.stderr.read()

    def go(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def admitted(self):
        return self.log.stat().st_size if self.log.exists() else 0

    def account(self):
        output, errors = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, errors
        return json.loads(output)

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(build, dynamodb, tmp_path):
    """start(count, endpoint=..., **settings): processes that are ready and begin together with go()."""
    processes = []

    def start_them(count, **settings):
        new = []
        for _ in range(count):
            settings.setdefault("dynamodb_endpoint", dynamodb.endpoint)
            new.append(Process(build, tmp_path / f"log-{len(processes)}", **settings))
            processes.append(new[-1])
        for process in new:
            process.wait_ready()
        return new

    yield start_them
    for process in processes:
        if process.process.poll() is None:
            process.kill()


def long_window_ms():
    """A window with ten minutes to go at least: windows begin at multiples of their length."""
    now = time.time() * 1000
    return next(w for w in (3_600_000, 5_400_000, 8_640_000) if w - now % w > 600_000)


def table_name():
    return f"limits-{next(_tables)}"


@pytest.mark.parametrize("lease", [0, 100])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_processes_together_admit_exactly_the_limit(dynamodb, start, algorithm, lease):
    table = table_name()
    processes = start(3, table=table, algorithm=algorithm, permits=400, window_ms=long_window_ms(), lease=lease, threads=2,
                      denials=3)
    for process in processes:
        process.go()
    accounts = [process.account() for process in processes]
    assert all(account["closed"] and account["unavailable"] == 0 for account in accounts), accounts
    admitted = sum(process.admitted() for process in processes)
    assert admitted == sum(account["admitted"] for account in accounts)
    unused = sum(account["returned"] for account in accounts)
    # With leases, what one process gave back at its end may have come too late for the others.
    assert 400 - unused <= admitted <= 400
    assert lease > 0 or admitted == 400
    assert sum(account["taken"] for account in accounts) - unused == admitted
    if algorithm != "token_bucket":
        assert dynamodb.taken(table) == admitted
    if lease > 0:
        assert sum(account["writes"] for account in accounts) < 250, "leases save writes"


def test_the_table_is_made_for_on_demand_use_with_ttl(dynamodb, start):
    table = table_name()
    for process in start(2, table=table, algorithm="fixed_window", permits=3, window_ms=60_000, lease=0, threads=1, denials=1):
        process.go()
        process.account()
    described = dynamodb.client.describe_table(TableName=table)["Table"]
    assert described["KeySchema"] == [{"AttributeName": "id", "KeyType": "HASH"}]
    assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    ttl = dynamodb.client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
    for item in dynamodb.client.scan(TableName=table)["Items"]:
        assert 3_500 < int(item["expires_at"]["N"]) - time.time() < 3_800
        assert item["id"]["S"].startswith("fixed_window/60000ms/limit|tenant=shared/")


@pytest.mark.parametrize("lease", [0, 100])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_killed_processes_cost_what_they_held_and_no_more(dynamodb, start, algorithm, lease):
    settings = dict(table=table_name(), algorithm=algorithm, permits=3000, window_ms=long_window_ms(), lease=lease, threads=2)
    killed = start(2, denials=0, **settings)
    others = start(2, denials=3, **settings)
    for process in killed + others:
        process.go()
    for process, enough in zip(killed, (60, 250)):
        # The others may be quicker, so that there is no more to get.
        while process.admitted() < enough and any(other.process.poll() is None for other in others):
            time.sleep(0.005)
        process.kill()
    accounts = [process.account() for process in others]
    admitted = sum(process.admitted() for process in killed + others)
    # Held by each killed process: two lots and one that was under way; without leases what two callers waited for.
    held = 2 * (3 * lease if lease > 0 else 2)
    unused = sum(account["returned"] for account in accounts)
    assert 3000 - held - unused <= admitted <= 3000
    if algorithm != "token_bucket":
        assert admitted <= dynamodb.taken(settings["table"]) <= admitted + held


@pytest.mark.parametrize("lease", [0, 100])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_a_lost_answer_took_counts_as_taken(dynamodb, start, algorithm, lease):
    proxy = LossyProxy(dynamodb.port, every=7)
    try:
        table = table_name()
        processes = start(2, table=table, algorithm=algorithm, permits=300, window_ms=long_window_ms(), lease=lease,
                          threads=1, denials=3, dynamodb_endpoint=proxy.endpoint)
        for process in processes:
            process.go()
        accounts = [process.account() for process in processes]
    finally:
        proxy.stop()
    admitted = sum(process.admitted() for process in processes)
    assert proxy.swallowed > 0
    unused = sum(account["returned"] for account in accounts)
    assert 0 < admitted <= 300
    if lease == 0:
        assert admitted + proxy.swallowed_permits == 300, accounts
    # Swallowed denials are lost answers too: what they asked for is thought to be taken.
    assert sum(account["lost"] for account in accounts) >= proxy.swallowed_permits
    assert sum(account["failures"] for account in accounts) == proxy.swallowed
    if algorithm != "token_bucket":
        assert dynamodb.taken(table) == admitted + proxy.swallowed_permits
