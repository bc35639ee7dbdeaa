# SPDX-License-Identifier: Apache-2.0
"""Our Signature Version 4 against botocore's, over generated requests.

S3 is left out: it encodes paths in another way, which our signer says it does not do.
"""

import datetime
import random
from urllib.parse import quote

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest

SERVICES = ["monitoring", "logs", "xray", "execute-api", "lambda", "es", "aps", "sts"]
TEXTS = [
    "", " ", "a", "A", "b c", "a+b", "*", "~", "%", "%20", "%2F", "100%", ".", "..", "-_.~", "é", "漢字", "👍",
    "a=b", "a&b", "/", "//", "?", "#", "[x]", "(y)", "'", '"', "\\", "|", "^", "`", "{}", "<>", ",;:@!$", "\x7f", "\t",
]
SPACES = ["", " ", "  ", "\t", " \t "]


def words(random_, most):
    return "".join(random_.choice(TEXTS) for _ in range(random_.randrange(most)))


def wire_path(random_):
    """A path as a client may put it on the wire: encoded, with dots and empty segments left in."""
    segments = [
        random_.choice(["", ".", "..", "...", ".a", "a."]) if random_.random() < 0.3
        else quote(words(random_, 4), safe=random_.choice(["", "*~", "!$&'()*+,;=:@~"]))
        for _ in range(random_.randrange(6))
    ]
    return "/" + "/".join(segments)


def respelled(random_, text):
    """Text percent-encoded in one of the ways that mean the same."""
    encoded = quote(text, safe=random_.choice(["-_.~", "*-_.~", "!$'()*,;:@/?-_.~", "-_."]))
    if random_.random() < 0.3:
        return "".join(
            chunk if i == 0 else "%" + chunk[:2].lower() + chunk[2:]
            for i, chunk in enumerate(encoded.split("%")))
    return encoded


def wire_query(random_, parameters):
    pairs = []
    for name, value in parameters:
        pair = respelled(random_, name) + "=" + respelled(random_, value)
        pairs.append(pair[:-1] if value == "" and name and random_.random() < 0.5 else pair)
    return "&".join(pairs)


def odd_value(random_):
    parts = [random_.choice(["a", "Value", "x;y", "k=v", '"two  blanks"', "é", "漢", "1,2"])
             for _ in range(random_.randrange(4))]
    gap = random_.choice(["  ", " ", "\t", " \t ", "   "])
    return random_.choice(SPACES) + gap.join(parts) + random_.choice(SPACES)


def generated(seed):
    random_ = random.Random(seed)
    names = [words(random_, 3) for _ in range(3)]
    parameters = [
        (random_.choice(names), words(random_, 3)) for _ in range(random_.choice([0, 0, 1, 2, 5, 9]))]
    headers = [
        [random_.choice(["Content-Type", "x-amz-target", "X-Amz-Meta-A", "x-amz-meta-a", "Accept",
                         "User-Agent", "X-Amzn-Trace-Id", "Connection", "Expect", "TE", "zz", "A-b"]),
         odd_value(random_)]
        for _ in range(random_.randrange(7))]
    if random_.random() < 0.1:
        headers.append(["X-Amz-Content-SHA256", "UNSIGNED-PAYLOAD"])
    origin = random_.choice([
        "https://logs.eu-west-1.amazonaws.com", "http://127.0.0.1:4566", "https://127.0.0.1:443",
        "http://localhost:80", "https://Host.Example:8443", "http://[::1]:9000"])
    return parameters, {
        "method": random_.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"]),
        "origin": origin,
        "path": wire_path(random_),
        "query": wire_query(random_, parameters),
        "headers": headers,
        "body": words(random_, 30),
        "service": random_.choice(SERVICES),
        "region": random_.choice(["eu-west-1", "us-gov-west-1", "cn-north-1"]),
        "id": "AKID" + str(random_.randrange(10**9)),
        "secret": "".join(random_.choices("abcXYZ019+/=", k=40)),
        "token": random_.choice(["", "", "a/session+token==", "t" * 1200]),
        "time": random_.choice([0, 1795219199, 1795219200, 951827696, 2**31, random_.randrange(2**32)]),
    }


def botocore_authorization(monkeypatch, parameters, description):
    time = datetime.datetime.fromtimestamp(description["time"], datetime.timezone.utc)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: time.replace(tzinfo=None))
    request = botocore.awsrequest.AWSRequest(
        method=description["method"],
        url=description["origin"] + description["path"],
        params=parameters,
        data=description["body"].encode(),
    )
    for name, value in description["headers"]:
        request.headers[name] = value
    credentials = botocore.credentials.Credentials(
        description["id"], description["secret"], description["token"] or None)
    botocore.auth.SigV4Auth(credentials, description["service"], description["region"]).add_auth(request)
    return request.headers["Authorization"]


def test_generated_requests_are_signed_as_botocore_signs_them(monkeypatch, probe):
    cases = [(seed, *generated(seed)) for seed in range(500)]
    ours = probe.sign([description for _, _, description in cases])
    assert len(ours) == len(cases)
    different = [
        (seed, description)
        for (seed, parameters, description), authorization in zip(cases, ours)
        if authorization != botocore_authorization(monkeypatch, parameters, description)
    ]
    assert not different, f"{len(different)} of {len(cases)}, the first: {different[0]}"


EDGES = [
    {"path": path} for path in
    ["/", "//", "/.", "/..", "/./", "/../", "/a/.", "/a/..", "/a/b/..", "/a/b/../", "/a//b/./c/../d/", "//a//",
     "/a/.../b", "/%2E%2E/a", "/a%2Fb", "/%E6%BC%A2", "/*~%25", "/a%20b", "/a+b"]
] + [
    {"headers": [["X-Amz-Meta", value]]} for value in
    ["", " ", "a  b", " a", "a ", "a\tb", '"a  b"', "a\t \tb", "é  漢"]
] + [
    {"headers": [["b", "2"], ["a", "x"], ["B", "1"], ["b", " 3 "]]},
]


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: repr(edge)[:60])
def test_edges_are_signed_as_botocore_signs_them(monkeypatch, probe, edge):
    _, description = generated(1)
    description |= {"query": "", "headers": [], "origin": "https://example.com", "path": "/"} | edge
    assert probe.sign([description]) == [botocore_authorization(monkeypatch, [], description)]


@pytest.mark.parametrize("part", ["method", "origin", "path", "query", "body", "service", "region", "secret",
                                  "token", "time"])
def test_each_part_of_a_request_changes_the_signature(probe, part):
    _, description = generated(2)
    changed = dict(description)
    changed[part] = {"method": "PURGE", "origin": "https://other.example", "path": "/other", "query": "other=1",
                     "time": description["time"] + 1}.get(part, "other")
    before, after = probe.sign([description, changed])
    assert before.split("Signature=")[1] != after.split("Signature=")[1]
