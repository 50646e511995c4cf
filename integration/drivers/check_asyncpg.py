"""asyncpg against the URL in argv: binary protocol, statement cache, transactions, cursors."""

import asyncio
import sys
from datetime import date
from decimal import Decimal

import asyncpg


async def main(url: str) -> None:
    connection = await asyncpg.connect(url)
    for user_id in range(1, 30):
        row = await connection.fetchrow(
            "SELECT name, born FROM users WHERE user_id = $1", user_id
        )
        assert tuple(row) == (f"user {user_id}", date(1970, 1, 1 + user_id)), row

    statement = await connection.prepare(
        "SELECT total FROM orders WHERE user_id = $1 AND order_id = $2"
    )
    assert [parameter.name for parameter in statement.get_parameters()] == ["int8", "int4"]
    for user_id in range(1, 30):
        assert await statement.fetchval(user_id, 1) == Decimal(user_id)

    await connection.execute("INSERT INTO users VALUES ($1, $2, $3)", 1001, "größe €", None)
    try:
        async with connection.transaction():
            await connection.execute("UPDATE users SET name = 'lost' WHERE user_id = $1", 1001)
            raise KeyError
    except KeyError:
        pass
    assert await connection.fetchval("SELECT name FROM users WHERE user_id = 1001") == "größe €"
    try:
        await connection.execute("INSERT INTO users VALUES ($1, 'again')", 1001)
        raise AssertionError("a duplicate was accepted")
    except asyncpg.UniqueViolationError as error:
        assert error.constraint_name == "users_pkey"

    async with connection.transaction():
        seen = []
        async for row in connection.cursor(
            "SELECT order_id FROM orders WHERE user_id = $1 ORDER BY order_id", 5, prefetch=2
        ):
            seen.append(row["order_id"])
        assert seen == [1, 2, 3], seen

    await connection.executemany(
        "INSERT INTO orders VALUES ($1, $2, $3)", [(8, 100 + i, i) for i in range(10)]
    )
    assert await connection.fetchval("SELECT count(*) FROM orders WHERE user_id = 8") == 13
    await connection.execute("DELETE FROM orders WHERE user_id = 8 AND order_id >= 100")
    await connection.execute("DELETE FROM users WHERE user_id = 1001")
    rows = await connection.fetch("SELECT user_id FROM users WHERE user_id < 10")
    assert sorted(row["user_id"] for row in rows) == list(range(1, 10))
    await connection.close()

    pool = await asyncpg.create_pool(url, min_size=4, max_size=8)

    async def reader(user_id: int) -> None:
        async with pool.acquire() as one:
            name = await one.fetchval("SELECT name FROM users WHERE user_id = $1", user_id)
            assert name == f"user {user_id}", name

    await asyncio.gather(*(reader(1 + i % 29) for i in range(300)))
    await pool.close()


asyncio.run(main(sys.argv[1]))
print("done")
