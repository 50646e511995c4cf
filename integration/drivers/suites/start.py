#!/usr/bin/env python3
"""Starts a PostgreSQL and a proxy in front of it or of others, for a client's own test suite.

    start.py start DIRECTORY PORT [DATABASE...]   PostgreSQL on PORT, the proxy on PORT + 1
    start.py restart DIRECTORY                    the proxy alone, after a build
    start.py alone DIRECTORY                      ends the proxy, leaves PostgreSQL
    start.py stop DIRECTORY                       both, by process id

`start` prints shell assignments, so that a runner can say

    eval "$(integration/drivers/suites/start.py start /tmp/suite 21000)"

and has DIRECT_URL and PROXY_URL, and the parts that are alike in both or not: SUITE_HOST, SUITE_USER,
SUITE_PASSWORD, SUITE_DATABASE, DIRECT_PORT, PROXY_PORT, DIRECT_SOCKETS, PROXY_SOCKETS (directories).
The role is a superuser. Every DATABASE (by default one named `suite`) is made and is in proxy.yaml; one
that is written `+DATABASE` is only in proxy.yaml, because the suite makes it.
SHARDS is the number of shards, 1 if it is not set: then the proxy's one shard is that PostgreSQL. Of
several each has a PostgreSQL of its own, on PORT + 2 and on (SERVER_PORTS has all ports of PostgreSQL).
Tables are at home on the first, or sharded by the column that SHARD_KEY names, where they have it.
SHARDWIRE names another binary than target/debug/shardwire; PG_BIN another PostgreSQL.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HOST = "127.0.0.1"
USER = "suite"
PASSWORD = "suite-secret"
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "max_connections": "400",
    "max_prepared_transactions": "50",
    "wal_level": "logical",
    "listen_addresses": f"'{HOST}'",
    "timezone": "'UTC'",
}


def programs() -> Path:
    """The directory of PostgreSQL's server programs."""
    if "PG_BIN" in os.environ:
        return Path(os.environ["PG_BIN"])
    found = shutil.which("postgres") or shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]


def as_postgres(*command: object) -> list[str]:
    """The command, as a user that PostgreSQL accepts: it refuses to run as root."""
    words = [str(word) for word in command]
    return ["runuser", "-u", "postgres", "--", *words] if os.getuid() == 0 else words


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def wait_for(what: str, port: int, log: Path) -> None:
    for _ in range(300):
        if answers(port):
            return
        time.sleep(0.1)
    sys.exit(f"{what} does not answer on port {port}:\n{log.read_text()[-4000:]}")


def server_ports(port: int) -> list[int]:
    """The direct server's, and those of the shards if there are several."""
    shards = int(os.environ.get("SHARDS", "1"))
    return [port, *(port + 2 + shard for shard in range(shards if shards > 1 else 0))]


def data_of(directory: Path, port: int, server: int) -> Path:
    return directory / ("data" if server == port else f"data{server - port}")


def start_postgresql(directory: Path, port: int, server_port: int, databases: list[str]) -> None:
    bin, data, log = programs(), data_of(directory, port, server_port), directory / "postgresql.log"
    if not data.exists():
        directory.mkdir(parents=True, exist_ok=True)
        password = directory / "password"
        password.write_text(PASSWORD)
        if os.getuid() == 0:
            shutil.chown(directory, "postgres")
            shutil.chown(password, "postgres")
        subprocess.run(
            as_postgres(
                bin / "initdb", "-D", data, "-U", USER, "--pwfile", password, "-N",
                "-A", "password", "-E", "UTF8", "--locale", "C.UTF-8",
            ),
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    options = [f"-c{name}={value.strip(chr(39))}" for name, value in SETTINGS.items()]
    with log.open("ab") as output:
        server = subprocess.Popen(
            as_postgres(bin / "postgres", "-D", data, "-p", server_port, "-k", directory, *options),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    wait_for("PostgreSQL", server_port, log)
    if server.poll() is not None:
        sys.exit(f"port {server_port} is another server's")
    os.environ["PGPASSWORD"] = PASSWORD
    for database in databases:
        if database.startswith("+"):
            continue
        # It is there already when the directory is used again.
        subprocess.run(
            [bin / "createdb", "-h", HOST, "-p", str(server_port), "-U", USER, database],
            check=False, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def configuration(directory: Path, port: int, databases: list[str]) -> str:
    lines = [
        f'listen: ["{HOST}:{port + 1}", "{directory}:{port + 1}"]',
        "auth:",
        # On both sides: SCRAM takes a tenth of a second per login in a debug build, which makes the
        # suites slow and those of their tests fail that have little time.
        "  method: password",
        f"  users: {{ {USER}: {{ password: {PASSWORD} }} }}",
        "databases:",
    ]
    servers = server_ports(port)[-int(os.environ.get("SHARDS", "1")):]
    shards = [f'{{ name: s{shard}, primary: "{HOST}:{at}" }}' for shard, at in enumerate(servers)]
    key = os.environ.get("SHARD_KEY")
    for database in databases:
        database = database.lstrip("+")
        lines += [
            f"  {database}:",
            f"    backend: {{ database: {database}, user: {USER}, password: {PASSWORD} }}",
            "    pool: { mode: transaction, max_size: 20 }",
            f"    shards: [{', '.join(shards)}]",
        ]
        if key:
            lines.append(f'    tables: {{ "*": {{ shard_key: {key} }} }}')
    return "\n".join(lines) + "\n"


def start_proxy(directory: Path, port: int) -> None:
    binary = Path(os.environ.get("SHARDWIRE", ROOT / "target/debug/shardwire"))
    log = directory / "proxy.log"
    with log.open("ab") as output:
        proxy = subprocess.Popen(
            [binary, "--config", directory / "proxy.yaml"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    (directory / "proxy.pid").write_text(str(proxy.pid))
    wait_for("the proxy", port + 1, log)
    if proxy.poll() is not None:
        sys.exit(f"the proxy ended:\n{log.read_text()[-4000:]}")


def end(pid_file: Path, how: signal.Signals) -> None:
    """Ends the process whose id is the file's first line, and waits for it."""
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text().split("\n")[0])
    try:
        for _ in range(100):
            os.kill(pid, how)
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    pid_file.unlink(missing_ok=True)


def start(directory: Path, port: int, databases: list[str]) -> None:
    servers = server_ports(port)
    for wanted in (*servers, port + 1):
        if answers(wanted):
            sys.exit(f"port {wanted} is in use")
    for server in servers:
        start_postgresql(directory, port, server, databases)
    (directory / "proxy.yaml").write_text(configuration(directory, port, databases))
    (directory / "port").write_text(str(port))
    start_proxy(directory, port)
    base = f"postgresql://{USER}:{PASSWORD}@{HOST}"
    for name, value in {
        "DIRECT_URL": f"{base}:{port}/{databases[0]}",
        "PROXY_URL": f"{base}:{port + 1}/{databases[0]}",
        "SUITE_HOST": HOST,
        "SUITE_USER": USER,
        "SUITE_PASSWORD": PASSWORD,
        "SUITE_DATABASE": databases[0],
        "DIRECT_PORT": port,
        "PROXY_PORT": port + 1,
        "SERVER_PORTS": "'" + " ".join(map(str, servers)) + "'",
        "DIRECT_SOCKETS": directory,
        "PROXY_SOCKETS": directory,
    }.items():
        print(f"{name}={value}")


def main() -> None:
    match sys.argv[1:]:
        case ["start", directory, port, *databases]:
            start(Path(directory).absolute(), int(port), databases or ["suite"])
        case ["restart", directory]:
            path = Path(directory).absolute()
            end(path / "proxy.pid", signal.SIGINT)
            start_proxy(path, int((path / "port").read_text()))
        case ["alone", directory]:
            end(Path(directory).absolute() / "proxy.pid", signal.SIGINT)
        case ["stop", directory]:
            path = Path(directory).absolute()
            end(path / "proxy.pid", signal.SIGINT)
            for data in path.glob("data*"):
                end(data / "postmaster.pid", signal.SIGINT)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
