# SPDX-License-Identifier: Apache-2.0
"""The other side: takes PutLogEvents, PutTraceSegments and PutMetricData on loopback, keeps which records came and how
often, and goes wrong on demand. Nothing in it is Spillway's."""

import collections
import gzip
import json
import random
import socket
import struct
import threading
import time


class Books:
    """What came, by records' own marks: (run, thread, n) of logs and spans, the sum of the counter."""

    def __init__(self):
        self.logs = collections.Counter()
        self.spans = collections.Counter()
        self.measurements = 0
        self.recovered = 0  # Of logs and spans: marked so by the process after the one that was killed.
        self.unreadable = 0

    def enter_log(self, event):
        self.logs[(event["run"], event["thread"], event["n"])] += 1
        self.recovered += "recovered" in event

    def enter_emf(self, document):
        self.measurements += round(document["Work"])

    def enter(self, operation, body):
        if operation == "PutLogEvents":
            for event in body["logEvents"]:
                self.enter_log(json.loads(event["message"]))
        elif operation == "PutTraceSegments":
            for text in body["TraceSegmentDocuments"]:
                document = json.loads(text)
                marks = document["annotations"]
                self.spans[(marks["run"], marks["thread"], marks["n"])] += 1
                self.recovered += "recovered" in marks
        elif operation == "PutMetricData":
            for datum in body["MetricData"]:
                if datum["MetricName"] == "Work":
                    self.measurements += round(datum["Value"])


class Receiver:
    """Serves each connection on a thread of its own. `fault` may be changed at any time:

    none     answers
    reset    with the chance of `chance` takes the request, answers the half, and resets the connection
    slow     takes the request, and answers one byte each half second
    busy     asks to slow down: 429 for X-Ray, ThrottlingException for the others
    """

    def __init__(self, seed=1):
        self.books = Books()
        self.fault = "none"
        self.chance = 0.5
        self.requests = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._connections = set()
        self._listener = None
        self.port = None
        self.listen()

    def listen(self):
        """Serves (again), on the port of before."""
        self._listener = socket.create_server(("127.0.0.1", self.port or 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self):
        """From now on nobody listens, and what is connected is not any more."""
        # Wakes the thread in accept() too, which close() alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            open_ones, self._connections = self._connections, set()
        for connection in open_ones:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            with connection, connection.makefile("rb") as stream:
                while self._answer(connection, stream):
                    pass
        except (OSError, ValueError):
            pass  # The connection ended in the middle: that is what this is for.
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _answer(self, connection, stream):
        line = stream.readline()
        if not line.endswith(b"\r\n"):
            return False
        path = line.split()[1].decode()
        headers = {}
        while (header := stream.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode().partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        body = stream.read(length)
        if len(body) != length:
            return False
        operation = headers.get("x-amz-target", "").rpartition(".")[2]
        operation = operation or {"/TraceSegments": "PutTraceSegments"}.get(path, path)
        fault = self.fault
        if fault == "busy":
            self._reply(connection, b'{"__type":"ThrottlingException","message":"slow down"}', "429 Too Many Requests")
            return True
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        with self._lock:
            self.requests += 1
            is_struck = self._random.random() < self.chance
            try:
                self.books.enter(operation, json.loads(body))
            except (ValueError, KeyError, TypeError):
                self.books.unreadable += 1
        if fault == "reset" and is_struck:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Le")
            # Closed with something unsent to linger for: a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        self._reply(connection, b"{}", "200 OK", slowly=fault == "slow")
        return True

    def _reply(self, connection, body, status, slowly=False):
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        reply = (f"HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.1\r\nDate: {date}\r\n"
                 f"Content-Length: {len(body)}\r\n\r\n").encode() + body
        if not slowly:
            connection.sendall(reply)
            return
        for i in range(len(reply)):
            connection.sendall(reply[i:i + 1])
            time.sleep(0.5)


class SilentListener:
    """A port whose queue of connections is full: the kernel answers no further one."""

    def __init__(self):
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.port = self._listener.getsockname()[1]
        self._clients = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", self.port))
            self._clients.append(client)

    def close(self):
        for client in [*self._clients, self._listener]:
            client.close()
