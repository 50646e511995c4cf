#!/usr/bin/env python3
"""Sends the statements of PostgreSQL's regression tests to PostgreSQL and through the proxy, one at a
time, and compares every answer: rows, types, tags, notices, all fields of errors.

    statements.py corpus LOG CORPUS
        Collects the statements of each test from a server's jsonlog (log_statement = all).
    statements.py compare CORPUS DIRECT AGAIN PROXY [--extended] [--disturb] [--only TEST] [--report FILE]
        Three ports, each with its own fresh server behind it. What the first two, both direct, answer
        differently (process ids, times, costs) is not compared with the proxy.

--extended prepares each statement by the protocol, describes and runs it. --disturb has another client
take the server connection that was used last before every second statement, so that a session never
stays on one (transaction pooling with two connections), and gives it settings of its own. --hint sends
definitions to shard s0 by a comment, and also to the server of shard s1 at port SECOND, past the proxy.
"""

import argparse
import collections
import json
import re
import socket
import struct
import sys

DATABASE = "regression"
PARAMETERS = {
    "TimeZone": "PST8PDT",
    "DateStyle": "Postgres, MDY",
    "options": "-c intervalstyle=postgres_verbose",
}
# Differ from one server to another by their nature.
VOLATILE_FIELDS = "FLR"
LIMIT_SECONDS = 20
# What the proxy does not do on several shards; with --hint it is sent to one.
DEFINITION = re.compile(
    r"(\s|--[^\n]*\n|/\*.*?\*/)*(create|alter|drop|comment|grant|revoke|reindex|cluster|vacuum|analyze|"
    r"truncate|refresh|security|import|reassign|do|call|declare|listen|load|prepare|discard|deallocate)\b",
    re.IGNORECASE | re.DOTALL,
)
CONTROL = re.compile(
    r"\s*(begin|start|end|commit|rollback|abort|savepoint|release|set|reset)\b", re.IGNORECASE
)
PLAN = re.compile(r"D \['(Home s0|Any|->  plan of shard s\d)'\]")
HINT = b"/* shardwire: shard=s0 */ "
# OIDs and transaction ids run ahead on the one or the other server.
COUNTER = re.compile(r"(?<![\d.])(?:1[6-9]\d\d\d|[23]\d\d\d\d)(?![\d.])")
# psql asked for an object by the OID that it had where the log was written.
BY_OID = re.compile(r"(?:= |\()'(?:1[6-9]|[23]\d)\d\d\d'")


def collect(log: str) -> list[dict]:
    """The sessions of a log in the order in which they began."""
    sessions: dict[str, dict] = {}
    for line in open(log, encoding="utf-8", errors="surrogateescape"):
        entry = json.loads(line)
        name = entry.get("application_name", "")
        if not name.startswith("pg_regress/"):
            continue
        session = sessions.setdefault(
            entry["session_id"],
            {"test": name[11:], "user": entry.get("user"), "statements": []},
        )
        statements, message = session["statements"], entry.get("message", "")
        if entry["error_severity"] == "LOG" and message.startswith("statement: "):
            statements.append(message[11:])
            session["logged"] = True
        elif entry["error_severity"] in ("ERROR", "FATAL") and "statement" in entry:
            # A statement that can't be parsed is not logged before its error.
            if not (session.get("logged") and statements and statements[-1] == entry["statement"]):
                statements.append(entry["statement"])
            session["logged"] = False
    for session in sessions.values():
        session.pop("logged", None)
    return list(sessions.values())


class Client:
    """A connection that speaks the protocol, and hands out messages as they came."""

    def __init__(self, port: int, user: str, name: str):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(LIMIT_SECONDS)
        self.buffer = b""
        self.ended = False
        parameters = {"user": user, "database": DATABASE, "application_name": name, **PARAMETERS}
        body = struct.pack("!I", 196608)
        for key, value in parameters.items():
            body += key.encode() + b"\0" + value.encode() + b"\0"
        body += b"\0"
        self.socket.sendall(struct.pack("!I", len(body) + 4) + body)
        self.greeting = self.read()

    def message(self) -> tuple[str, bytes]:
        while len(self.buffer) < 5 or len(self.buffer) < 1 + struct.unpack("!I", self.buffer[1:5])[0]:
            more = self.socket.recv(1 << 16)
            if not more:
                raise ConnectionError
            self.buffer += more
        end = 1 + struct.unpack("!I", self.buffer[1:5])[0]
        tag, body, self.buffer = chr(self.buffer[0]), self.buffer[5:end], self.buffer[end:]
        return tag, body

    def read(self) -> list[tuple[str, bytes]]:
        """Messages up to ReadyForQuery; COPY FROM STDIN gets no data."""
        messages = []
        try:
            while True:
                tag, body = self.message()
                messages.append((tag, body))
                if tag == "G":
                    self.send(("c", b""))
                    if self.extended:
                        self.send(("S", b""))
                if tag == "Z":
                    return messages
        except TimeoutError:
            self.ended = True
            return [*messages, ("timeout", b"")]
        except (ConnectionError, OSError):
            self.ended = True
            return [*messages, ("gone", b"")]

    extended = False

    def send(self, *messages: tuple[str, bytes]) -> None:
        packed = b"".join(
            tag.encode() + struct.pack("!I", len(body) + 4) + body for tag, body in messages
        )
        try:
            self.socket.sendall(packed)
        except OSError:
            self.ended = True

    def run(self, sql: bytes, extended: bool) -> list[tuple[str, bytes]]:
        self.extended = extended
        if not extended:
            self.send(("Q", sql + b"\0"))
            return self.read()
        self.send(
            ("P", b"\0" + sql + b"\0\0\0"),
            ("D", b"S\0"),
            ("B", b"\0\0\0\0\0\0\0\0"),
            ("D", b"P\0"),
            ("E", b"\0\0\0\0\0"),
            ("S", b""),
        )
        messages = self.read()
        # COPY FROM STDIN leaves the Sync that came before its data unanswered.
        return messages

    def close(self) -> None:
        self.send(("X", b""))
        self.socket.close()


def shown(messages: list[tuple[str, bytes]]) -> list[str]:
    """Messages in words, without what differs between servers by nature."""
    return [words for tag, body in messages if (words := show(tag, body)) is not None]


def show(tag: str, body: bytes) -> str | None:
    if tag in "EN":
        fields = {part[:1].decode(): part[1:] for part in body.split(b"\0") if part}
        kept = (f"{key}={text(value)}" for key, value in fields.items() if key not in VOLATILE_FIELDS)
        return f"{tag} {' | '.join(kept)}"
    if tag == "T":
        return f"T {columns(body)}"
    if tag == "t":
        count = struct.unpack("!H", body[:2])[0]
        oids = struct.unpack(f"!{count}I", body[2:])
        return f"t {[oid if oid < 16384 else 'user' for oid in oids]}"
    if tag == "D":
        return f"D {row(body)}"
    if tag == "K":
        return None
    return f"{tag} {text(body)}"


def text(body: bytes) -> str:
    return body.decode("utf-8", "backslashreplace")


def columns(body: bytes) -> list[tuple]:
    found, at = [], 2
    for _ in range(struct.unpack("!H", body[:2])[0]):
        end = body.index(b"\0", at)
        _, _, oid, size, modifier, form = struct.unpack("!IHIhih", body[end + 1 : end + 19])
        found.append((text(body[at:end]), oid if oid < 16384 else "user", size, modifier, form))
        at = end + 19
    return found


def row(body: bytes) -> list[str | None]:
    values, at = [], 2
    for _ in range(struct.unpack("!H", body[:2])[0]):
        size = struct.unpack("!i", body[at : at + 4])[0]
        at += 4
        values.append(None if size < 0 else text(body[at : at + size]))
        at += max(size, 0)
    return values


class Disturber:
    """Another client of the proxy, which takes the connection that was used last."""

    SETTINGS = [
        "SET datestyle TO german",
        "SET search_path TO pg_catalog",
        "SET timezone TO 'Asia/Tokyo'",
        "SET default_transaction_read_only TO on",
        "RESET ALL",
    ]

    def __init__(self, port: int, user: str):
        self.client = Client(port, user, "disturber")
        self.count = 0

    def begin(self) -> bool:
        """Whether a connection is held."""
        self.count += 1
        if self.count % 2:
            setting = self.SETTINGS[self.count // 2 % len(self.SETTINGS)]
            self.client.run(setting.encode(), False)
            return False
        self.client.run(b"BEGIN", False)
        self.client.run(b"SELECT 1", False)
        return True

    def end(self) -> None:
        self.client.run(b"ROLLBACK", False)


class Findings:
    def __init__(self, report):
        self.report = report
        self.counts = collections.Counter()
        self.kinds = collections.Counter()
        self.tests = collections.Counter()

    def note(self, kind: str, test: str, sql: str, direct: list[str], proxy: list[str]) -> None:
        self.counts[kind] += 1
        self.tests[test] += 1
        if self.report:
            print(f"=== {kind} in {test}\n{sql}", file=self.report)
            gone = [line for line in direct if line not in proxy][:12]
            come = [line for line in proxy if line not in direct][:12]
            for sign, lines in (("-", gone), ("+", come)):
                for line in lines:
                    print(f"{sign} {line[:400]}", file=self.report)
            if gone == come:
                print("  (another order)", file=self.report)
            self.report.flush()


def codes(messages: list[str]) -> list[str]:
    """The SQLSTATEs of errors."""
    return [found.group(1) for line in messages if (found := re.search(r"^E.*?C=(\w+)", line))]


def refusal(messages: list[str]) -> str | None:
    """What the proxy refused, if it did."""
    for line in messages:
        if line.startswith("E ") and "C=0A000" in line and "H=" in line:
            found = re.search(r"\| M=([^|]*?) (\||$)", line + " |")
            return found.group(1) if found else line
    return None


def tidy(port: int) -> None:
    """Ends prepared transactions that a test has left behind: others would wait for them."""
    client = Client(port, "postgres", "tidy")
    for line in shown(client.run(HINT + b"SELECT gid FROM pg_prepared_xacts", False)):
        if line.startswith("D "):
            gid = line[4:-2]
            client.run(HINT + f"ROLLBACK PREPARED '{gid}'".encode(), False)
    client.close()


def compare(corpus: list[dict], arguments) -> Findings:
    report = open(arguments.report, "w", encoding="utf-8") if arguments.report else None
    findings = Findings(report)
    ports = (arguments.direct, arguments.again, arguments.proxy)
    disturber = Disturber(arguments.proxy, "postgres") if arguments.disturb else None
    for session in corpus:
        test = session["test"]
        if arguments.only and test not in arguments.only.split(","):
            continue
        clients = [Client(port, session["user"], f"pg_regress/{test}") for port in ports]
        astray = False
        second = Client(arguments.hint, session["user"], test) if arguments.hint else None
        for sql in session["statements"]:
            if any(client.ended for client in clients):
                break
            data = sql.encode("utf-8", "surrogateescape")
            holds = disturber.begin() if disturber else False
            texts = [data, data, HINT + data if arguments.hint and DEFINITION.match(sql) else data]
            if second and not second.ended and (DEFINITION.match(sql) or CONTROL.match(sql)):
                second.run(data, False)
            answers = [
                shown(client.run(text, arguments.extended)) for client, text in zip(clients, texts)
            ]
            if holds:
                disturber.end()
            findings.counts["statements"] += 1
            direct, again, proxy = answers
            # The proxy's own part of a plan.
            proxy = [line for line in proxy if not PLAN.match(line)]
            if astray:
                # A refusal has failed the transaction here and not there.
                findings.counts["behind a refusal in a transaction"] += 1
                astray = direct[-1:] != ["Z I"] or proxy[-1:] != ["Z I"]
            elif texts[2] != data:
                findings.counts["definitions, hinted"] += 1
                if direct[-1:] != proxy[-1:] or codes(direct) != codes(proxy):
                    findings.note("different", test, sql, direct, proxy)
            elif direct == proxy:
                findings.counts["same"] += 1
            elif direct != again:
                findings.counts["differs between servers"] += 1
            elif BY_OID.search(sql) or [COUNTER.sub("#", line) for line in direct] == [
                COUNTER.sub("#", line) for line in proxy
            ]:
                findings.counts["differs by an OID"] += 1
            elif (kind := refusal(proxy)) and kind != refusal(direct):
                findings.kinds[kind] += 1
                findings.note("refused", test, sql, direct, proxy)
                # So that what follows finds what it needs.
                astray = proxy[-1:] == ["Z E"]
                if not astray:
                    clients[2].run(HINT + data, False)
            else:
                findings.note("different", test, sql, direct, proxy)
        for client in [*clients, second]:
            if client:
                client.close()
        for port in ports:
            tidy(port)
        if report:
            print(f"--- {test}: {dict(findings.counts)}", file=report)
        print(f"{test}: {findings.tests[test]}", file=sys.stderr, flush=True)
    return findings


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    corpus = commands.add_parser("corpus")
    corpus.add_argument("log")
    corpus.add_argument("corpus")
    comparison = commands.add_parser("compare")
    comparison.add_argument("corpus")
    for port in ("direct", "again", "proxy"):
        comparison.add_argument(port, type=int)
    comparison.add_argument("--extended", action="store_true")
    comparison.add_argument("--disturb", action="store_true")
    comparison.add_argument("--hint", metavar="SECOND", type=int)
    comparison.add_argument("--only")
    comparison.add_argument("--report")
    arguments = parser.parse_args()
    if arguments.command == "corpus":
        sessions = collect(arguments.log)
        with open(arguments.corpus, "w", encoding="utf-8", errors="surrogateescape") as output:
            json.dump(sessions, output)
        print(f"{len(sessions)} sessions, {sum(len(s['statements']) for s in sessions)} statements")
        return
    with open(arguments.corpus, encoding="utf-8", errors="surrogateescape") as source:
        findings = compare(json.load(source), arguments)
    for kind, count in findings.counts.most_common():
        print(f"{count:7} {kind}")
    for kind, count in findings.kinds.most_common():
        print(f"{count:7} refused: {kind}")
    for test, count in findings.tests.most_common(60):
        print(f"{count:7} in {test}")


if __name__ == "__main__":
    main()
