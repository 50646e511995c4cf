"""psycopg 3 against the console at the URL in argv: transactions, text and binary results."""

import sys

import psycopg
from psycopg.rows import dict_row

with psycopg.connect(sys.argv[1], row_factory=dict_row) as connection:
    for binary in (False, True):
        for prepare in (False, True):
            options = {"binary": binary, "prepare": prepare}
            stats = connection.execute("SHOW STATS", **options).fetchall()
            assert stats[0]["database"] == "app", stats
            assert int(stats[0]["total_query_count"]) >= 0, stats
            databases = connection.execute("SHOW DATABASES", **options).fetchall()
            assert databases[0]["paused"] == 0, databases
            clients = connection.execute("SHOW CLIENTS", **options).fetchall()
            assert "shardwire" in [row["database"] for row in clients], clients
    connection.commit()
    connection.autocommit = True
    connection.execute("PAUSE app")
    databases = connection.execute("SHOW DATABASES").fetchall()
    assert databases[0]["paused"] == 1, databases
    connection.execute("RESUME app")
    try:
        connection.execute("SHOW NONSENSE")
        raise AssertionError("no error")
    except psycopg.errors.UndefinedObject as error:
        assert "POOLS" in error.diag.message_hint, error.diag.message_hint

print("done")
