"""Compares Shardwire with PgBouncer, a plain TCP proxy and no proxy at all; started by bench.sh."""

import pathlib
import re
import signal
import statistics
import subprocess
import sys
import os

import report
from client import Connection, read_for
from servers import PG_BIN, ROWS, Bench, Failure, Proxy

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = int(os.environ.get("SECONDS_EACH", "4"))
IDLE = int(os.environ.get("IDLE_CLIENTS", "10000"))
ONLY = os.environ.get("ONLY", "")
LOADED = 500_000
MERGED = 1_000_000
GROUPS = 100_000
PLANNED = 5_000

AID = f"\\set aid random(1, {ROWS})\n"
POINT = AID + "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"
# Every row's balance is its number, so a wrong or missing row ends the client.
CHECKED = AID + ("SELECT abalance FROM pgbench_accounts WHERE aid = :aid \\gset\n"
                 "\\if :abalance <> :aid\nSELECT 'wrong row'::int;\n\\endif\n")
TRANSACTION = AID + ("BEGIN;\nUPDATE pgbench_accounts SET filler = 'x' WHERE aid = :aid;\n"
                     "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\nEND;\n")


def pgbench(bench, proxy, script, mode="simple", clients=16, seconds=SECONDS, words=()):
    """Runs pgbench through a proxy: the proxy's CPU in microseconds per transaction, and the rate."""
    path = bench.write("script.sql", script)
    before = proxy.cpu_seconds()
    done = subprocess.run(
        [str(word) for word in (PG_BIN / "pgbench", "-n", "-M", mode, "-c", clients, "-j", 2, "-T", seconds, *words,
                                "-f", path, "-h", "127.0.0.1", "-p", proxy.port, "-U", "bench",
                                proxy.database(mode))],
        capture_output=True, text=True, env=bench.env, cwd=bench.directory)
    spent = proxy.cpu_seconds() - before
    count = re.search(r"transactions actually processed: (\d+)", done.stdout)
    rate = re.search(r"tps = ([\d.]+)", done.stdout)
    if done.returncode != 0 or not count or int(count[1]) == 0:
        raise Failure(f"pgbench -M {mode} through {proxy.name}:\n{done.stdout}{done.stderr[-2000:]}")
    return spent * 1e6 / int(count[1]), float(rate[1])


def in_turns(proxies, measure, rounds=ROUNDS):
    """Medians by proxy. The proxies take turns, so that a busy moment hits all of them."""
    samples = {proxy.name: [] for proxy in proxies}
    for number in range(rounds):
        for proxy in proxies if number % 2 == 0 else reversed(proxies):
            samples[proxy.name].append(measure(proxy))
    return {name: tuple(map(statistics.median, zip(*taken))) for name, taken in samples.items()}


class Comparison:
    """The servers, the proxies, and the figures that they gave."""

    def __init__(self, bench):
        self.bench, self.rows = bench, []
        self.whole = bench.postgresql("whole", "0 AND 16383")
        self.shards = [bench.postgresql("s0", "0 AND 8191"), bench.postgresql("s1", "8192 AND 16383")]
        self.direct = Proxy("direct", None, self.whole)
        self.bouncer, self.release = bench.pgbouncer(self.whole)
        self.sharded = bench.shardwire(self.shards)

    def note(self, work, unit, target, figures, other):
        """One line of the table: Shardwire's figure beside another's, and their ratio."""
        ours, theirs = figures["shardwire"], figures[other]
        self.rows.append(report.Row(work, unit, ours, theirs, other, target))
        print(self.rows[-1], file=sys.stderr)

    def cpu(self, work, target, script, **how):
        for proxy in (self.bouncer, self.sharded):
            pgbench(self.bench, proxy, script, **how | {"seconds": 1})
        taken = in_turns([self.bouncer, self.sharded], lambda proxy: pgbench(self.bench, proxy, script, **how))
        self.note(work, "µs CPU", target, {name: cpu for name, (cpu, _) in taken.items()}, "pgbouncer")

    def points(self):
        for mode in ("prepared", "simple", "extended"):
            for proxy in (self.bouncer, self.sharded):
                pgbench(self.bench, proxy, CHECKED, mode=mode, seconds=2)
        for mode, target in (("prepared", 0.9), ("simple", 1.1), ("extended", 1.0)):
            self.cpu(f"point SELECT, {mode}, 16 clients", target, POINT, mode=mode)
        self.cpu("point SELECT, prepared, 200 clients", 0.9, POINT, mode="prepared", clients=200)

    def floor(self):
        """What the kernel alone takes: a plain TCP proxy, and both poolers, in front of one server."""
        single, tcp = self.bench.shardwire([self.whole]), self.bench.haproxy(self.whole)
        taken = in_turns([tcp, self.bouncer, single], lambda proxy: pgbench(self.bench, proxy, POINT, "prepared"))
        figures = {name: cpu for name, (cpu, _) in taken.items()}
        for other in ("haproxy", "pgbouncer"):
            self.note("the same, one server behind it", "µs CPU", None, figures, other)

    def transactions(self):
        self.cpu("BEGIN; UPDATE; SELECT; END, 16 clients", 0.9, TRANSACTION)

    def connections(self):
        self.cpu("connect, query, leave (trust)", 1.0, POINT, clients=4, words=["-C"])
        bouncer, _ = self.bench.pgbouncer(self.whole, "scram-sha-256")
        sharded = self.bench.shardwire(self.shards, "scram-sha-256")
        taken = in_turns([bouncer, sharded],
                         lambda proxy: pgbench(self.bench, proxy, POINT, clients=4, words=["-C"]))
        figures = {name: cpu for name, (cpu, _) in taken.items()}
        self.note("connect, query, leave (SCRAM)", "µs CPU", 1.2, figures, "pgbouncer")

    def stream(self):
        single = self.bench.shardwire([self.whole])
        tcp = self.bench.haproxy(self.whole)

        def measure(proxy):
            before = proxy.cpu_seconds()
            total, passed = read_for(proxy.port, "SELECT * FROM wide", SECONDS)
            return (proxy.cpu_seconds() - before) * 1e6 / (total / 1e6), total / 1e6 / passed

        taken = in_turns([self.direct, tcp, single], measure)
        cpu, rate = ({name: pair[at] for name, pair in taken.items()} for at in (0, 1))
        self.note("20,000 rows from one shard", "µs CPU/MB", 1.1, cpu, "haproxy")
        self.note("20,000 rows from one shard", "MB/s", -0.95, rate, "direct")

    def merges(self):
        """Rows that the proxy puts together itself: in order, and into groups that both shards have."""
        self.bench.psql(self.sharded.port, "bench", "DROP TABLE IF EXISTS merged")
        self.bench.psql(self.sharded.port, "bench", "CREATE TABLE merged (id int PRIMARY KEY, kind int) SHARD KEY (id)")
        self.bench.psql(self.sharded.port, "bench",
                        f"INSERT INTO merged SELECT i, i % {GROUPS} FROM generate_series(1, {MERGED}) i")
        partial = sum(int(self.bench.psql(port, "bench", "SELECT count(DISTINCT kind) FROM merged"))
                      for port in self.shards)
        for work, sql, rows, target in (
                ("two streams of rows merged in order", "SELECT * FROM merged ORDER BY id", MERGED, -2),
                ("partial groups of two shards merged", "SELECT kind, count(*), sum(id) FROM merged GROUP BY kind",
                 partial, -1.5)):
            def measure(proxy):
                connection, before = Connection(proxy.port), proxy.cpu_seconds()
                for _ in range(3):
                    connection.query(sql)
                connection.close()
                return (3 * rows / 1e6 / (proxy.cpu_seconds() - before),)

            (rate,) = in_turns([self.sharded], measure)["shardwire"]
            self.rows.append(report.Row(work, "M rows/CPU s", rate, None, "", target))
            print(self.rows[-1], file=sys.stderr)

    def planning(self):
        """What a statement costs more whose like has not been seen: one with a name that no other has."""
        number = 0

        def measure(proxy):
            nonlocal number
            connection, spent = Connection(proxy.port), []
            for name in ("a", None):
                before = proxy.cpu_seconds()
                for aid in range(1, PLANNED + 1):
                    number += 1
                    connection.query(f"SELECT abalance AS {name or f'n{number}'} FROM pgbench_accounts WHERE aid = {aid}")
                spent.append((proxy.cpu_seconds() - before) * 1e6 / PLANNED)
            connection.close()
            return (spent[1] - spent[0],)

        (more,) = in_turns([self.sharded], measure)["shardwire"]
        self.rows.append(report.Row("planning a statement of a new kind", "µs CPU", more, None, "", 60))
        print(self.rows[-1], file=sys.stderr)

    def load(self):
        """COPY FROM split over two shards; last of all, because it takes the place of the rows."""
        lines = (f"{aid}\t1\t{aid}\t{'x' * 84}\n" for aid in range(1, LOADED + 1))
        path = self.bench.write("accounts.data", "".join(lines))
        megabytes = path.stat().st_size / 1e6
        servers = [Proxy("servers", process.pid, None) for process in self.bench.processes[1:3]]

        def measure(copied):
            for port in self.shards:
                self.bench.psql(port, "bench", "TRUNCATE pgbench_accounts")
            before = self.sharded.cpu_seconds(), sum(server.tree_cpu_seconds() for server in servers)
            self.bench.psql(self.sharded.port, "bench", f"\\copy pgbench_accounts FROM '{path}' {copied}")
            after = self.sharded.cpu_seconds(), sum(server.tree_cpu_seconds() for server in servers)
            return [(end - start) * 1e6 / megabytes for start, end in zip(before, after)]

        for copied in ("", "CSV DELIMITER E'\\t'"):
            ours, theirs = (statistics.median(taken) for taken in zip(*(measure(copied) for _ in range(ROUNDS))))
            name = "COPY FROM split over two shards, " + ("CSV" if copied else "text")
            self.note(name, "µs CPU/MB", 1.0, {"shardwire": ours, "servers": theirs}, "servers")

    def idle(self):
        active = in_turns([self.sharded], lambda proxy: pgbench(self.bench, proxy, POINT, "prepared", 200))
        before = self.sharded.resident_bytes()
        crowd = [Connection(self.sharded.port) for _ in range(IDLE)]
        each = (self.sharded.resident_bytes() - before) / 1024 / IDLE
        self.rows.append(report.Row(f"idle client, {IDLE:,}", "KiB", each, None, "", 6))
        crowded = in_turns([self.sharded], lambda proxy: pgbench(self.bench, proxy, POINT, "prepared", 200))
        for one in crowd:
            one.close()
        self.rows.append(report.Row(f"200 active among {IDLE:,} clients", "µs CPU", crowded["shardwire"][0],
                                    active["shardwire"][0], "200 clients alone", 1.15))

    def latency(self):
        def measure(proxy):
            for old in self.bench.directory.glob("latency*"):
                old.unlink()
            pgbench(self.bench, proxy, POINT, "prepared", 1, words=["-j", 1, "-l", "--log-prefix=latency"])
            lines = "".join(path.read_text() for path in self.bench.directory.glob("latency*")).splitlines()
            times = sorted(int(line.split()[2]) for line in lines)
            return statistics.median(times), times[len(times) * 99 // 100]

        taken = in_turns([self.direct, self.bouncer, self.sharded], measure)
        median = {name: pair[0] for name, pair in taken.items()}
        for proxy in ("shardwire", "pgbouncer"):
            added = median[proxy] - median["direct"]
            self.rows.append(report.Row(f"added latency of {proxy}, 1 client", "µs", added, None, "", 35))
        ours = taken["shardwire"]
        self.rows.append(report.Row("p99 of shardwire, 1 client", "µs", ours[1], ours[0], "the median", 3))


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    bench = Bench()
    try:
        print("loading three servers", file=sys.stderr)
        comparison = Comparison(bench)
        parts = ["points", "floor", "transactions", "connections", "stream", "latency", "merges", "planning", "idle",
                 "load"]
        for part in parts:
            if not ONLY or part in ONLY.split(","):
                getattr(comparison, part)()
        note = ""
        if comparison.release < (1, 21):
            note = (f"PgBouncer {'.'.join(map(str, comparison.release))} can't prepare statements in transaction pooling "
                    "(1.21 can): its prepared figures are of session pooling, which does less work.")
        print(report.table(comparison.rows, ROUNDS, SECONDS, note))
        if picture := os.environ.get("PICTURE"):
            pathlib.Path(picture).write_text(report.picture(comparison.rows))
    except Failure as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    finally:
        bench.close()


main()
