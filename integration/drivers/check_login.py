"""psycopg and asyncpg log in at the URL in argv: as its user, as `old` by md5, and wrongly."""

import asyncio
import sys
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psycopg

WHO = "SELECT session_user || '/' || current_user"


def variant(url: str, user: str, password: str, database: str | None = None) -> str:
    parts = urlsplit(url)
    place = f"{user}:{password}@{parts.hostname}:{parts.port}"
    path = parts.path if database is None else f"/{database}"
    return urlunsplit(parts._replace(netloc=place, path=path))


async def main(url: str) -> None:
    parts = urlsplit(url)
    user, password = parts.username, parts.password
    for name, secret in [(user, password), ("old", "old-secret")]:
        target = variant(url, name, secret)
        with psycopg.connect(target) as connection:
            assert connection.execute(WHO).fetchone() == (f"{name}/{name}",)
        connection = await asyncpg.connect(target)
        assert await connection.fetchval(WHO) == f"{name}/{name}"
        await connection.close()

    for target, code, error in [
        (variant(url, user, "wrong"), "28P01", asyncpg.InvalidPasswordError),
        (variant(url, "nobody", password), "28P01", asyncpg.InvalidPasswordError),
        (variant(url, "old", "wrong"), "28P01", asyncpg.InvalidPasswordError),
        (variant(url, user, password, "nowhere"), "3D000", asyncpg.InvalidCatalogNameError),
    ]:
        try:
            psycopg.connect(target)
            raise AssertionError(f"psycopg is let in at {target}")
        except psycopg.OperationalError as refusal:
            words = {"28P01": "password authentication failed", "3D000": "does not exist"}
            assert words[code] in str(refusal), refusal
        try:
            await asyncpg.connect(target)
            raise AssertionError(f"asyncpg is let in at {target}")
        except error as refusal:
            assert refusal.sqlstate == code, refusal
    print("done")


asyncio.run(main(sys.argv[1]))
