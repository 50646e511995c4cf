"""The servers and proxies that the benchmarks compare, started on free ports of this machine."""

import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PG_BIN = pathlib.Path(os.environ["PG_BIN"])
SHARDWIRE = os.environ.get("SHARDWIRE", os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release/shardwire"))
PGBOUNCER = os.environ.get("PGBOUNCER") or shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
HAPROXY = os.environ.get("HAPROXY") or shutil.which("haproxy") or "/usr/sbin/haproxy"
SCALE = int(os.environ.get("SCALE", "1"))

ROWS = 100_000 * SCALE
SLOT = "(hashint8extended(aid, 0) & 16383)"
# A home table: about 2.4 MB on the wire.
WIDE = ("CREATE TABLE wide AS SELECT n AS id, md5(n::text) AS a, md5((n + 1)::text) AS b, now() AS at "
        "FROM generate_series(1, 20000) n; VACUUM ANALYZE wide")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PASSWORD = "bench"

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
        self.env |= {"LC_ALL": "C", "PGPASSWORD": PASSWORD}

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

    def postgresql(self, name, slots, fsync="off"):
        """A server with pgbench's tables and those accounts whose slot is in the range."""
        data, port = self.directory / name, free_port()
        self.run(PG_BIN / "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--no-sync", "--auth=trust",
                 **self.account)
        hba = self.write(f"{name}.hba", "local all all trust\nhost bench bench 127.0.0.1/32 trust\n")
        settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.directory,
                    "hba_file": hba, "fsync": fsync, "shared_buffers": "128MB", "max_connections": 300,
                    "max_prepared_transactions": 10}
        words = [f"-c{setting}={value}" for setting, value in settings.items()]
        process = self.start(name, [PG_BIN / "postgres", "-D", data, *words], **self.account)
        deadline = time.monotonic() + 30
        while "ready" not in status_of(data):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failure((self.directory / f"{name}.log").read_text())
            time.sleep(0.05)
        for database, sql in [("postgres", f"CREATE ROLE bench LOGIN PASSWORD '{PASSWORD}'"),
                              ("postgres", "CREATE DATABASE bench OWNER bench")]:
            self.psql(port, database, sql, "postgres", self.directory)
        self.run(PG_BIN / "pgbench", "-i", "-q", "-s", SCALE, "-h", "127.0.0.1", "-p", port, "-U", "bench", "bench")
        self.psql(port, "bench", f"DELETE FROM pgbench_accounts WHERE {SLOT} NOT BETWEEN {slots}")
        self.psql(port, "bench", "UPDATE pgbench_accounts SET abalance = aid")
        self.psql(port, "bench", "VACUUM (FULL, ANALYZE) pgbench_accounts")
        for sql in WIDE.split("; "):
            self.psql(port, "bench", sql)
        return port

    def pgbouncer(self, port, auth="trust"):
        """PgBouncer in front of one server; its version as (major, minor)."""
        version = self.run(PGBOUNCER, "--version", **self.account)
        release = tuple(map(int, re.search(r"(\d+)\.(\d+)", version).groups()))
        listen = free_port()
        server = f"host=127.0.0.1 port={port} dbname=bench user=bench"
        users = self.write(f"users-{auth}.txt", f'"bench" "{PASSWORD}"\n')
        config = self.write(f"pgbouncer-{auth}.ini", "\n".join([
            "[databases]", f"bench = {server}", f"bench_session = {server} pool_mode=session pool_size=250",
            "[pgbouncer]", "listen_addr = 127.0.0.1", f"listen_port = {listen}", "unix_socket_dir =",
            f"auth_type = {auth}", f"auth_file = {users}", "pool_mode = transaction", "default_pool_size = 20",
            "max_client_conn = 20000", "log_connections = 0", "log_disconnections = 0",
            "max_prepared_statements = 200" if release >= (1, 21) else "", ""]))
        process = self.start(f"pgbouncer-{auth}", [PGBOUNCER, config], **self.account)
        self.wait_for(f"pgbouncer-{auth}", process, listen, "bench")
        proxy = Proxy("pgbouncer", process.pid, listen)
        if release < (1, 21):
            # It can't carry prepared statements in transaction pooling.
            proxy.databases["prepared"] = "bench_session"
        return proxy, release

    def shardwire(self, shards, auth="trust"):
        """Shardwire with its defaults in front of these servers."""
        listen = free_port()
        name = f"shardwire-{auth}-{len(shards)}"
        config = self.write(f"{name}.yaml", "\n".join([
            f"listen: 127.0.0.1:{listen}", f"auth: {{ method: {auth}, users: {{ bench: {{ password: {PASSWORD} }} }} }}",
            "tls: off", "limits: { max_clients: 20000 }", "databases:", "  bench:",
            "    backend: { user: bench, tls: off }", "    pool: { mode: transaction, max_size: 20 }", "    shards:",
            *[f"      - {{ name: s{number}, primary: 127.0.0.1:{port} }}" for number, port in enumerate(shards)],
            "    tables:", "      pgbench_accounts: { shard_key: aid }", "      pgbench_branches: { replicated: true }",
            "      pgbench_tellers: { replicated: true }", "log: { level: warn }", ""]))
        process = self.start(name, [os.path.abspath(SHARDWIRE), "--config", config])
        self.wait_for(name, process, listen, "bench")
        return Proxy("shardwire", process.pid, listen)

    def haproxy(self, port):
        """A plain TCP proxy in front of one server."""
        listen = free_port()
        config = self.write("haproxy.cfg", "\n".join([
            "global", "  maxconn 1000", "defaults", "  mode tcp", "  timeout connect 5s", "  timeout client 1h",
            "  timeout server 1h", "frontend in", f"  bind 127.0.0.1:{listen}", "  default_backend out",
            "backend out", f"  server one 127.0.0.1:{port}", ""]))
        process = self.start("haproxy", [HAPROXY, "-db", "-f", config])
        self.wait_for("haproxy", process, listen, "bench")
        return Proxy("haproxy", process.pid, listen)


class Proxy:
    """What clients connect to. Without a process it is the server itself."""

    def __init__(self, name, pid, port):
        self.name, self.pid, self.port, self.databases = name, pid, port, {}

    def database(self, mode):
        return self.databases.get(mode, "bench")

    def cpu_seconds(self):
        """utime + stime of the process with all its threads, proc(5)."""
        if self.pid is None:
            return 0.0
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def tree_cpu_seconds(self):
        """The same of a server and its processes, those that have ended too."""
        total = 0
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                pid, fields = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if pid == self.pid:
                total += sum(map(int, fields[11:15]))
            elif int(fields[1]) == self.pid:
                total += sum(map(int, fields[11:13]))
        return total / TICKS_PER_SECOND

    def resident_bytes(self):
        """Resident memory, proc(5)."""
        pages = int(pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


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
