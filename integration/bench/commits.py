"""The commit of a transaction on two shards beside the same two updates in one PostgreSQL.

    PG_BIN=/usr/lib/postgresql/15/bin SHARDWIRE=target/release/shardwire python3 integration/bench/commits.py

Servers have synchronous_commit on and flush to disk. One client runs BEGIN, two UPDATEs and COMMIT, in
turns on one PostgreSQL and through Shardwire, a few milliseconds each; the medians are compared, and
beside them what the disk's flush alone takes.
"""

import os
import statistics
import sys
import time

from client import Connection
from servers import Bench

ROUNDS = int(os.environ.get("ROUNDS", "30"))
EACH = int(os.environ.get("EACH", "20"))
TARGET = 1.6


class Client(Connection):
    """A client that may be inside a transaction."""

    def _until_ready(self):
        total, tail = 0, b""
        while tail[:5] != b"Z\0\0\0\x05" or len(tail) < 6:
            piece = self.socket.recv(1 << 16)
            if not piece:
                raise ConnectionError("the connection was closed")
            total += len(piece)
            tail = (tail + piece)[-6:]
        if tail[5:] == b"E":
            raise RuntimeError("the transaction has failed")
        return total


def transaction(client, near, far):
    """Seconds of one transaction, and of its COMMIT alone."""
    began = time.perf_counter()
    client.query("BEGIN")
    for account in (near, far):
        client.query(f"UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = {account}")
    asked = time.perf_counter()
    client.query("COMMIT")
    ended = time.perf_counter()
    return ended - began, ended - asked


def flush(directory):
    """Milliseconds of one write that reaches the disk."""
    with open(directory / "flush", "wb") as file:
        times = []
        for _ in range(200):
            began = time.perf_counter()
            file.write(b"x" * 8192)
            file.flush()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def main():
    bench = Bench()
    try:
        single = bench.postgresql("single", "0 AND 16383", "on")
        shards = [
            bench.postgresql("s0", "0 AND 8191", "on"),
            bench.postgresql("s1", "8192 AND 16383", "on"),
        ]
        proxy = bench.shardwire(shards)
        first = "SELECT min(aid) FROM pgbench_accounts"
        near, far = (int(bench.psql(port, "bench", first).strip()) for port in shards)
        sides = {"one PostgreSQL": Client(single), "Shardwire": Client(proxy.port)}
        for client in sides.values():
            for _ in range(EACH):
                transaction(client, near, far)
        times = {name: [] for name in sides}
        for _ in range(ROUNDS):
            for name, client in sides.items():
                times[name] += [transaction(client, near, far) for _ in range(EACH)]
        medians = {}
        for name, all_times in times.items():
            whole, commit = (1000 * statistics.median(column) for column in zip(*all_times))
            medians[name] = whole
            print(f"{name:15} {whole:6.2f} ms, of which COMMIT {commit:6.2f} ms")
        ratio = medians["Shardwire"] / medians["one PostgreSQL"]
        print(f"ratio {ratio:.2f}, target {TARGET}; a flush takes {flush(bench.directory):.2f} ms")
    finally:
        bench.close()


if __name__ == "__main__":
    sys.exit(main())
