"""psycopg 3 against the URL in argv: parameters, prepared statements, transactions, errors."""

import sys
from datetime import date
from decimal import Decimal

import psycopg

url = sys.argv[1]

with psycopg.connect(url) as connection:
    cursor = connection.cursor()
    for user_id in range(1, 30):
        row = cursor.execute(
            "SELECT name, born FROM users WHERE user_id = %s", (user_id,)
        ).fetchone()
        assert row == (f"user {user_id}", date(1970, 1, 1 + user_id)), row
        connection.commit()

    # From the sixth execution on psycopg prepares; binary both ways.
    for user_id in range(1, 30):
        row = cursor.execute(
            "SELECT total FROM orders WHERE user_id = %s AND order_id = %s",
            (user_id, 1),
            prepare=True,
            binary=True,
        ).fetchone()
        assert row == (Decimal(user_id),), row
        connection.commit()

    cursor.execute("INSERT INTO users VALUES (%s, %s, %s)", (1000, "größe €", None))
    connection.commit()
    cursor.execute("UPDATE users SET name = %s WHERE user_id = %s", ("lost", 1000))
    connection.rollback()
    row = cursor.execute("SELECT name, born FROM users WHERE user_id = 1000").fetchone()
    assert row == ("größe €", None), row
    connection.commit()

    try:
        cursor.execute("INSERT INTO users VALUES (%s, 'again')", (1000,))
        raise AssertionError("a duplicate was accepted")
    except psycopg.errors.UniqueViolation as error:
        assert error.diag.constraint_name == "users_pkey", error.diag.constraint_name
    connection.rollback()

    with connection.transaction():
        cursor.execute("UPDATE users SET name = 'outer' WHERE user_id = 1000")
        try:
            with connection.transaction():
                cursor.execute("UPDATE users SET name = 'inner' WHERE user_id = 1000")
                raise psycopg.Rollback()
        except psycopg.Rollback:
            pass
    row = cursor.execute("SELECT name FROM users WHERE user_id = 1000").fetchone()
    assert row == ("outer",), row
    connection.commit()

with psycopg.connect(url, autocommit=True) as connection:
    with connection.pipeline():
        cursors = [
            connection.execute("SELECT name FROM users WHERE user_id = %s", (1 + i % 3,))
            for i in range(50)
        ]
        for i, cursor in enumerate(cursors):
            assert cursor.fetchone() == (f"user {1 + i % 3}",)
    rows = connection.execute("SELECT user_id FROM users WHERE user_id < 10").fetchall()
    assert sorted(rows) == [(i,) for i in range(1, 10)], rows
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO orders VALUES (%s, %s, %s)", [(7, 100 + i, i) for i in range(10)]
        )
    count = connection.execute("SELECT count(*) FROM orders WHERE user_id = 7").fetchone()
    assert count == (13,), count
    connection.execute("DELETE FROM orders WHERE user_id = 7 AND order_id >= 100")
    connection.execute("DELETE FROM users WHERE user_id = 1000")
    assert connection.info.server_version >= 140000
print("done")
