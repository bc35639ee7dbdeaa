# SPDX-License-Identifier: Apache-2.0
"""A strict stand-in for GetSamplingRules and SamplingTargets, which no emulator has.

Requests are validated against botocore's model of X-Ray, member by member; what the model does not know is refused. The
service divides the reservoir of a rule as the developer guide says: a client that reports gets its share as a quota for
some seconds. All of it follows from what was reported, so that two clients that behave alike are answered alike.
"""

import http.server
import json
import re
import threading

import botocore.session
from botocore.validate import ParamValidator

_model = botocore.session.get_session().get_service_model("xray")
_operations = {"/GetSamplingRules": "GetSamplingRules", "/SamplingTargets": "GetSamplingTargets"}


def _unknown_members(shape, value, where):
    if shape.type_name == "structure":
        for name, member in value.items():
            if name not in shape.members:
                yield f"{where}.{name}"
            else:
                yield from _unknown_members(shape.members[name], member, f"{where}.{name}")
    elif shape.type_name == "list":
        for member in value:
            yield from _unknown_members(shape.member, member, f"{where}[]")


class SamplingService:
    QUOTA_SECONDS = 12

    def __init__(self, rules):
        self.rules = {rule["RuleName"]: rule for rule in rules}
        self.modified = 0
        self.now = 0  # set by the test: both sides live in its time
        self.reports = []  # every statistics document
        self.clients = set()
        self.errors = []
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, answer = service.answer(self.path, body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def change(self, rule, now):
        self.rules[rule["RuleName"]] = rule
        self.modified = now

    def answer(self, path, body):
        try:
            operation = _model.operation_model(_operations[path])
            request = json.loads(body or b"{}")
        except (KeyError, ValueError) as error:
            return self._refuse(f"{path}: {error!r}")
        if wrong := list(_unknown_members(operation.input_shape, request, "")):
            return self._refuse(f"{path}: unknown {wrong}")
        # The protocol's timestamps are numbers, the validator's own are not.
        report = ParamValidator().validate(request, operation.input_shape)
        if report.has_errors():
            return self._refuse(f"{path}: {report.generate_report()}")
        return self._rules() if path == "/GetSamplingRules" else self._targets(request)

    def _refuse(self, why):
        self.errors.append(why)
        return 400, {"__type": "InvalidRequestException", "Message": why}

    def _rules(self):
        records = [{"SamplingRule": rule, "CreatedAt": 1.0, "ModifiedAt": float(self.modified)}
                   for rule in self.rules.values()]
        return 200, {"SamplingRuleRecords": records}

    def _targets(self, request):
        documents = request["SamplingStatisticsDocuments"]
        if not 1 <= len(documents) <= 25:
            return self._refuse(f"{len(documents)} documents")
        targets = []
        for document in documents:
            rule = self.rules.get(document["RuleName"])
            if rule is None or not re.fullmatch("[0-9a-f]{24}", document["ClientID"]):
                return self._refuse(f"statistics {document}")
            if document["SampledCount"] > document["RequestCount"] or document["BorrowCount"] > document["RequestCount"]:
                return self._refuse(f"counts {document}")
            if abs(document["Timestamp"] - self.now) > 1:
                return self._refuse(f"time {document}, it is {self.now}")
            self.reports.append(document)
            self.clients.add(document["ClientID"])
            # A busy client is given most of the reservoir, an idle one nothing, and now and then nothing is said.
            quota = min(rule["ReservoirSize"], document["RequestCount"] // 8)
            target = {"RuleName": rule["RuleName"], "FixedRate": rule["FixedRate"], "Interval": 10}
            if document["RequestCount"] % 5 != 0:
                target |= {"ReservoirQuota": quota, "ReservoirQuotaTTL": float(self.now + self.QUOTA_SECONDS)}
            targets.append(target)
        return 200, {"SamplingTargetDocuments": targets, "LastRuleModification": float(self.modified),
                     "UnprocessedStatistics": []}
