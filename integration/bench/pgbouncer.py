"""Measures CPU time per point query of PgBouncer and of Shardwire, in turns; started by pgbouncer.sh."""

import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

PG_BIN = pathlib.Path(os.environ["PG_BIN"])
SHARDWIRE = os.environ.get("SHARDWIRE", os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release/shardwire"))
PGBOUNCER = os.environ.get("PGBOUNCER") or shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = int(os.environ.get("SECONDS_EACH", "4"))
CLIENTS = int(os.environ.get("CLIENTS", "16"))
SCALE = int(os.environ.get("SCALE", "1"))

MODES = ["prepared", "simple", "extended"]
ROWS = 100_000 * SCALE
SELECT = f"\\set aid random(1, {ROWS})\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid"
QUERY = SELECT + ";\n"
# Every row's balance is its number, so a wrong or missing row ends the client.
CHECKED_QUERY = SELECT + " \\gset\n\\if :abalance <> :aid\nSELECT 'wrong row'::int;\n\\endif\n"
SLOT = "(hashint8extended(aid, 0) & 16383)"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """The comparison can't be made; the message says why."""


class Bench:
    """A directory and the processes in it; both are gone at its end."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="shardwire-bench-"))
        self.processes = []
        # PostgreSQL and PgBouncer refuse to be root.
        self.account = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam("postgres")
            self.account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self.directory, entry.pw_uid, entry.pw_gid)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        self.env["LC_ALL"] = "C"

    def close(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGINT)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o644)
        return path

    def run(self, *command, **options):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              env=self.env, cwd=self.directory, **options)
        if done.returncode != 0:
            raise Failure(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, name, command, **options):
        """Starts a process in a group of its own, so that a Ctrl-C reaches it in our order only."""
        with open(self.directory / f"{name}.log", "w") as log:
            process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log,
                                       stdin=subprocess.DEVNULL, env=self.env, cwd=self.directory,
                                       start_new_session=True, **options)
        self.processes.append(process)
        return process

    def wait_for(self, name, process, port, database):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            try:
                self.psql(port, database, "SELECT 1")
                return
            except Failure:
                time.sleep(0.1)
        log = (self.directory / f"{name}.log").read_text()
        raise Failure(f"{name} does not answer on port {port}; its log says:\n{log}")

    def psql(self, port, database, sql, user="bench", host="127.0.0.1"):
        return self.run(PG_BIN / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", host,
                        "-p", port, "-U", user, "-d", database, "-c", sql)

    def postgresql(self, name, slots):
        """A server with pgbench's tables and those accounts whose slot is in the range."""
        data, port = self.directory / name, free_port()
        self.run(PG_BIN / "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--no-sync", "--auth=trust",
                 **self.account)
        hba = self.write(f"{name}.hba", "local all all trust\nhost bench bench 127.0.0.1/32 trust\n")
        settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.directory,
                    "hba_file": hba, "fsync": "off", "shared_buffers": "128MB", "max_connections": 100,
                    "max_prepared_transactions": 10}
        words = [f"-c{setting}={value}" for setting, value in settings.items()]
        process = self.start(name, [PG_BIN / "postgres", "-D", data, *words], **self.account)
        deadline = time.monotonic() + 30
        while "ready" not in status_of(data):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failure((self.directory / f"{name}.log").read_text())
            time.sleep(0.05)
        for database, sql in [("postgres", "CREATE ROLE bench LOGIN"),
                              ("postgres", "CREATE DATABASE bench OWNER bench")]:
            self.psql(port, database, sql, "postgres", self.directory)
        self.run(PG_BIN / "pgbench", "-i", "-q", "-s", SCALE, "-h", "127.0.0.1", "-p", port, "-U", "bench", "bench")
        self.psql(port, "bench", f"DELETE FROM pgbench_accounts WHERE {SLOT} NOT BETWEEN {slots}")
        self.psql(port, "bench", "UPDATE pgbench_accounts SET abalance = aid")
        self.psql(port, "bench", "VACUUM (FULL, ANALYZE) pgbench_accounts")
        return port

    def pgbouncer(self, port):
        version = self.run(PGBOUNCER, "--version", **self.account)
        major, minor = map(int, re.search(r"(\d+)\.(\d+)", version).groups())
        follows = (major, minor) >= (1, 21)
        listen = free_port()
        server = f"host=127.0.0.1 port={port} dbname=bench user=bench"
        users = self.write("users.txt", '"bench" ""\n')
        config = self.write("pgbouncer.ini", "\n".join([
            "[databases]", f"bench = {server}", f"bench_session = {server} pool_mode=session",
            "[pgbouncer]", "listen_addr = 127.0.0.1", f"listen_port = {listen}", "unix_socket_dir =",
            "auth_type = trust", f"auth_file = {users}", "pool_mode = transaction", "default_pool_size = 20",
            "max_client_conn = 1000", "log_connections = 0", "log_disconnections = 0",
            "max_prepared_statements = 200" if follows else "", ""]))
        process = self.start("pgbouncer", [PGBOUNCER, config], **self.account)
        self.wait_for("pgbouncer", process, listen, "bench")
        note = ""
        databases = dict.fromkeys(MODES, "bench")
        if not follows:
            databases["prepared"] = "bench_session"
            note = (f"PgBouncer {major}.{minor} can't prepare statements in transaction pooling (1.21 can): "
                    "its -M prepared figures are of session pooling, which does less work.")
        return Proxy("pgbouncer", process.pid, listen, databases), note

    def shardwire(self, shards):
        listen = free_port()
        config = self.write("proxy.yaml", "\n".join([
            f"listen: 127.0.0.1:{listen}", "auth: { method: trust, users: { bench: {} } }", "tls: off",
            "databases:", "  bench:", "    backend: { user: bench, tls: off }",
            "    pool: { mode: transaction, max_size: 20 }", "    shards:",
            *[f"      - {{ name: s{number}, primary: 127.0.0.1:{port} }}" for number, port in enumerate(shards)],
            "    tables:", "      pgbench_accounts: { shard_key: aid }", "      pgbench_branches: { replicated: true }",
            "      pgbench_tellers: { replicated: true }", "log: { level: warn }", ""]))
        process = self.start("shardwire", [os.path.abspath(SHARDWIRE), "--config", config])
        self.wait_for("shardwire", process, listen, "bench")
        return Proxy("shardwire", process.pid, listen, dict.fromkeys(MODES, "bench"))

    def pgbench(self, proxy, mode, script, seconds):
        """Runs a script through a proxy: transactions, failed ones, and the proxy's CPU seconds."""
        path = self.write("script.sql", script)
        before = cpu_seconds(proxy.pid)
        done = subprocess.run(
            [str(word) for word in (PG_BIN / "pgbench", "-n", "-M", mode, "-c", CLIENTS, "-j", 2, "-T", seconds,
                                    "-f", path, "-h", "127.0.0.1", "-p", proxy.port, "-U", "bench",
                                    proxy.databases[mode])],
            capture_output=True, text=True, env=self.env, cwd=self.directory)
        spent = cpu_seconds(proxy.pid) - before
        count = re.search(r"transactions actually processed: (\d+)", done.stdout)
        failed = re.search(r"number of failed transactions: (\d+)", done.stdout)
        rate = re.search(r"tps = ([\d.]+)", done.stdout)
        if done.returncode != 0 or not count or int(count[1]) == 0:
            raise Failure(f"pgbench -M {mode} through {proxy.name}:\n{done.stdout}{done.stderr[-2000:]}")
        return Sample(int(count[1]), int(failed[1]) if failed else 0, float(rate[1]), spent)


class Proxy:
    def __init__(self, name, pid, port, databases):
        self.name, self.pid, self.port, self.databases = name, pid, port, databases


class Sample:
    def __init__(self, count, failed, rate, cpu):
        self.failed, self.rate, self.cpu_us = failed, rate, cpu * 1e6 / count


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def status_of(data):
    """What the postmaster says of itself: the eighth line of its pid file."""
    try:
        return (data / "postmaster.pid").read_text().split("\n")[7]
    except (OSError, IndexError):
        return ""


def cpu_seconds(pid):
    """utime + stime of a process with all its threads, proc(5)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def measure(bench, proxies):
    """Samples by mode and proxy. The proxies take turns, so that a busy moment hits both."""
    samples = {(mode, proxy.name): [] for mode in MODES for proxy in proxies}
    for mode in MODES:
        for proxy in proxies:
            bench.pgbench(proxy, mode, CHECKED_QUERY, 2)
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
        for mode in MODES:
            for proxy in proxies if number % 2 == 0 else reversed(proxies):
                samples[mode, proxy.name].append(bench.pgbench(proxy, mode, QUERY, SECONDS))
    return samples


def report(samples, note):
    print(f"\n{ROUNDS} rounds of {SECONDS} s, {CLIENTS} clients, {ROWS} rows; medians")
    print(f"{'mode':<10}{'proxy':<11}{'queries/s':>11}{'CPU us/query':>14}{'(least..most)':>16}{'failed':>8}")
    for mode in MODES:
        medians = {}
        for name in ["pgbouncer", "shardwire"]:
            taken = samples[mode, name]
            cpu = [sample.cpu_us for sample in taken]
            medians[name] = statistics.median(cpu)
            rate = statistics.median(sample.rate for sample in taken)
            span = f"{min(cpu):.2f}..{max(cpu):.2f}"
            failed = sum(sample.failed for sample in taken)
            print(f"{mode:<10}{name:<11}{rate:>11.0f}{medians[name]:>14.2f}{span:>16}{failed:>8}")
        print(f"{mode:<10}{'CPU of shardwire / pgbouncer':<32}{medians['shardwire'] / medians['pgbouncer']:>6.2f}")
    if note:
        print(note)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    bench = Bench()
    try:
        print("loading three servers", file=sys.stderr)
        whole = bench.postgresql("whole", "0 AND 16383")
        shards = [bench.postgresql("s0", "0 AND 8191"), bench.postgresql("s1", "8192 AND 16383")]
        pgbouncer, note = bench.pgbouncer(whole)
        report(measure(bench, [pgbouncer, bench.shardwire(shards)]), note)
    except Failure as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    finally:
        bench.close()


main()
