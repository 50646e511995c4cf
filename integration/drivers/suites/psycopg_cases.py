"""Sessions of psycopg 3, each run on PostgreSQL and through the proxy: do they see the same?

    psycopg_cases.py DIRECT_URL PROXY_URL DIRECT_FILE PROXY_FILE [CASE...]

psycopg's own tests are not in its source distribution, so these go over what they are about: pipelines,
prepared statements, server-side cursors, streams, COPY, two-phase commit, notifications, cancels, settings,
errors. A case returns what it saw. The files get a line `STATUS CASE` each, for compare.py.
"""

import asyncio
import datetime
import os
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg
from psycopg import ClientCursor, RawCursor
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import Jsonb
from psycopg.types.range import RangeInfo, register_range
from psycopg_pool import ConnectionPool

# For one case, in seconds.
PATIENCE = 60
CASES = []
# Of the endpoint that the cases are run on at the time.
URL = ""


def case(function):
    CASES.append(function)
    return function


def connect(**options):
    return psycopg.connect(URL, **options)


def err(function, *arguments):
    """What PostgreSQL says against it, or None."""
    try:
        function(*arguments)
    except psycopg.Error as error:
        return type(error).__name__, error.sqlstate, error.diag.message_primary
    return None


@case
def pipeline_basic():
    with connect() as client, client.pipeline() as p:
        c1 = client.execute("select 1")
        c2 = client.execute("select %s", [2])
        c3 = client.execute("select %s::text", ["x"])
        return (c1.fetchone(), c2.fetchone(), c3.fetchone())


@case
def pipeline_error():
    out = []
    client = connect(autocommit=True)
    try:
        with client.pipeline() as p:
            client.execute("select 1")
            client.execute("select foo")
            client.execute("select 2")
            p.sync()
    except psycopg.Error as e:
        out.append((type(e).__name__, e.sqlstate))
    out.append(client.pgconn.transaction_status)
    out.append(client.execute("select 3").fetchone())
    return out


@case
def pipeline_error_recover():
    out = []
    client = connect(autocommit=True)
    client.execute("create temp table pe(id serial primary key, d text)")
    with client.pipeline() as p:
        out.append(
            err(
                lambda: (
                    client.execute("insert into pe(d) values (%s)", ["a"]),
                    client.execute("select 1/0"),
                    p.sync(),
                )
            )
        )
        client.execute("insert into pe(d) values (%s)", ["b"])
        p.sync()
        cur = client.execute("select count(*) from pe")
        p.sync()
        out.append(cur.fetchone())
    return out


@case
def pipeline_transaction():
    out = []
    with connect() as client:
        client.execute("create temp table pt(id int)")
        with client.pipeline() as p:
            with client.transaction():
                client.execute("insert into pt values (1)")
            try:
                with client.transaction():
                    client.execute("insert into pt values (2)")
                    raise KeyError
            except KeyError:
                pass
            with client.transaction():
                try:
                    with client.transaction("sp"):
                        client.execute("select foo").fetchall()
                except psycopg.Error as e:
                    out.append(e.sqlstate)
            cur = client.execute("select array_agg(id) from pt")
        out.append(cur.fetchone())
    return out


@case
def pipeline_executemany():
    with connect() as client:
        client.execute("create temp table em(id int primary key, t text)")
        cur = client.cursor()
        cur.executemany(
            "insert into em values (%s,%s) returning id", [(i, str(i)) for i in range(500)], returning=True
        )
        n = 0
        while True:
            n += len(cur.fetchall())
            if not cur.nextset():
                break
        e = err(cur.executemany, "insert into em values (%s,%s)", [(1000, "a"), (1, "dup"), (1001, "c")])
        return (n, e, client.pgconn.transaction_status)


@case
def pipeline_ddl_mix():
    with connect(autocommit=True) as client, client.pipeline() as p:
        client.execute("drop table if exists pdm")
        client.execute("create table pdm(a int)")
        for i in range(50):
            client.execute("insert into pdm values (%s)", [i])
        a = client.execute("select sum(a) from pdm")
        client.execute("drop table pdm")
        b = client.execute("select to_regclass('pdm')")
        return (a.fetchone(), b.fetchone())


@case
def pipeline_concurrent_many():
    with connect(autocommit=True) as client, client.pipeline() as p:
        curs = [client.execute("select %s::int, repeat('x',1000)", [i]) for i in range(3000)]
        return sum((cu.fetchone()[0] for cu in curs))


@case
def pipeline_fetch_between():
    with connect(autocommit=True) as client, client.pipeline() as p:
        out = []
        for i in range(20):
            cur = client.execute("select %s", [i])
            out.append(cur.fetchone()[0])
            if i % 5 == 0:
                client.execute("set application_name to 'a%d'" % i)
        out.append(client.execute("show application_name").fetchone())
        return out


@case
def prepare_threshold():
    with connect(autocommit=True) as client:
        client.prepare_threshold = 2
        for i in range(10):
            client.execute("select %s", [i])
        return client.execute(
            "select count(*), bool_and(statement like 'select $1%') from pg_prepared_statements",
            prepare=False,
        ).fetchone()


@case
def prepare_many_evict():
    with connect(autocommit=True) as client:
        client.prepare_max = 5
        client.prepare_threshold = 0
        for i in range(30):
            client.execute(f"select {i}, %s", [i])
        return client.execute("select count(*) from pg_prepared_statements", prepare=False).fetchone()


@case
def prepare_deallocate_all():
    with connect(autocommit=True) as client:
        for i in range(3):
            client.execute("select %s::int", [i], prepare=True)
        client.execute("deallocate all")
        return (
            client.execute("select %s::int", [7], prepare=True).fetchone(),
            client.execute("select count(*) from pg_prepared_statements", prepare=False).fetchone(),
        )


@case
def prepare_discard_all():
    with connect(autocommit=True) as client:
        for i in range(3):
            client.execute("select %s::int", [i], prepare=True)
        client.execute("discard all", prepare=False)
        return client.execute("select %s::int", [7], prepare=True).fetchone()


@case
def prepare_rollback():
    with connect() as client:
        client.execute("select %s::int", [1], prepare=True)
        client.rollback()
        return client.execute("select %s::int", [2], prepare=True).fetchone()


@case
def prepared_after_ddl():
    with connect(autocommit=True) as client:
        client.execute("drop table if exists pad")
        client.execute("create table pad(a int)")
        client.execute("insert into pad values(1)")
        r = [client.execute("select * from pad", prepare=True).fetchone()]
        client.execute("alter table pad add b text default 'x'")
        r.append(err(lambda: client.execute("select * from pad", prepare=True)))
        client.execute("drop table pad")
        return r


@case
def prepared_txn_ddl():
    with connect() as client:
        client.execute("create temp table ptd(a int)")
        client.execute("select * from ptd", prepare=True)
        client.execute("alter table ptd add b int")
        return (
            err(lambda: client.execute("select * from ptd", prepare=True)),
            client.pgconn.transaction_status,
        )


@case
def server_cursor():
    with connect() as client, client.cursor("foo") as cursor:
        cursor.execute("select generate_series(1,%s)", [100])
        a = cursor.fetchone()
        b = cursor.fetchmany(5)
        cursor.scroll(10)
        d = cursor.fetchone()
        return (a, b, d, len(cursor.fetchall()))


@case
def server_cursor_scroll():
    with connect() as client, client.cursor("foo", scrollable=True) as cursor:
        cursor.execute("select generate_series(1,100)")
        cursor.scroll(50)
        a = cursor.fetchone()
        cursor.scroll(-10)
        b = cursor.fetchone()
        cursor.scroll(3, "absolute")
        return (a, b, cursor.fetchone(), err(lambda: cursor.scroll(-100)))


@case
def server_cursor_hold():
    with connect() as client:
        cursor = client.cursor("h", withhold=True)
        cursor.execute("select generate_series(1,10)")
        a = cursor.fetchmany(3)
        client.commit()
        b = cursor.fetchall()
        cursor.close()
        return (a, b)


@case
def server_cursor_binary_iter():
    with connect() as client, client.cursor("bi", binary=True) as cursor:
        cursor.itersize = 7
        cursor.execute("select i, i::text from generate_series(1,50) i")
        return sum((r[0] for r in cursor))


@case
def server_cursor_not_closed_err():
    client = connect(autocommit=True)
    cursor = client.cursor("x")
    return err(cursor.execute, "select 1")


@case
def server_cursor_in_pipeline():
    with connect() as client, client.pipeline():
        cursor = client.cursor("pp")
        cursor.execute("select generate_series(1,10)")
        a = cursor.fetchmany(3)
        cursor.close()
        return a


@case
def server_cursor_steal():
    with connect() as client:
        client.execute("declare st cursor for select generate_series(1,5)")
        cursor = client.cursor("st")
        a = cursor.fetchmany(2)
        return a


@case
def stream():
    with connect() as client:
        by_one = sum((row[0] for row in client.cursor().stream("select generate_series(1, %s)", [1000])))
        by_three = list(client.cursor().stream("select generate_series(1, 10)", size=3))
        return (by_one, by_three)


@case
def stream_error():
    with connect() as client:
        return (
            err(lambda: list(client.cursor().stream("select 1/(5-i) from generate_series(1,10) i"))),
            client.pgconn.transaction_status,
        )


@case
def copy_in_out():
    with connect() as client:
        cursor = client.cursor()
        cursor.execute("create temp table cp(a int, b text)")
        with cursor.copy("copy cp from stdin") as w:
            for i in range(1000):
                w.write_row((i, "x" * i))
        with cursor.copy("copy cp to stdout (format binary)") as r:
            n = sum((len(b) for b in r))
        with cursor.copy("copy cp (a) to stdout") as r:
            rows = sum((1 for _ in r.rows()))
        return (n, rows)


@case
def copy_in_error():
    with connect() as client:
        cursor = client.cursor()
        cursor.execute("create temp table cp(a int)")
        client.commit()

        def f():
            with cursor.copy("copy cp from stdin") as w:
                w.write("x\n")

        a = err(f)
        client.rollback()

        def g():
            with cursor.copy("copy cp from stdin") as w:
                w.write("1\n")
                raise KeyError("x")

        try:
            g()
        except KeyError:
            pass
        b = client.pgconn.transaction_status
        client.rollback()
        return (a, b, client.execute("select count(*) from cp").fetchone())


@case
def copy_out_break():
    with connect() as client:
        cursor = client.cursor()

        def f():
            with cursor.copy(
                "copy (select repeat('x', 1000) from generate_series(1, 10000000)) to stdout"
            ) as r:
                for b in r:
                    raise KeyError

        try:
            f()
        except KeyError:
            pass
        return (client.pgconn.transaction_status, client.closed)


@case
def copy_in_pipeline_refused():
    with connect() as client:

        def f():
            with client.pipeline():
                with client.cursor().copy("copy (select 1) to stdout") as r:
                    list(r)

        return err(f)


@case
def copy_params():
    with connect() as client, client.cursor().copy("copy (select %s::int) to stdout", [5]) as r:
        return [bytes(x) for x in r]


@case
def tpc():
    client = connect()
    x = client.xid(1, uuid.uuid4().hex, "b")
    client.tpc_begin(x)
    client.execute("select 1")
    client.tpc_prepare()
    client.close()
    client = connect()
    xs = [i for i in client.tpc_recover() if i.gtrid == x.gtrid]
    client.tpc_rollback(xs[0])
    n = len([i for i in client.tpc_recover() if i.gtrid == x.gtrid])
    client.rollback()
    x2 = client.xid(1, uuid.uuid4().hex, "b")
    client.tpc_begin(x2)
    client.execute("select 1")
    client.tpc_prepare()
    client.tpc_commit()
    client.tpc_begin(client.xid(1, "g", "h"))
    client.tpc_rollback()
    return (len(xs), xs[0].database, n, client.pgconn.transaction_status)


@case
def notifies():
    client = connect(autocommit=True)
    client.execute("listen ch")
    d = connect(autocommit=True)
    d.execute("notify ch, 'one'")
    d.execute("select pg_notify('ch','two')")
    got = [
        (n.channel, n.payload, n.pid == d.info.backend_pid) for n in client.notifies(timeout=3, stop_after=2)
    ]
    client.execute("notify ch, 'own'")
    got += [(n.payload, n.pid == client.info.backend_pid) for n in client.notifies(timeout=3, stop_after=1)]
    return got


@case
def notices():
    client = connect(autocommit=True)
    got = []
    client.add_notice_handler(lambda d: got.append((d.severity, d.message_primary)))
    client.execute("do $$begin raise notice 'hello'; raise warning 'w'; end$$")
    return got


@case
def cancel():
    client = connect(autocommit=True)
    t = threading.Timer(0.3, client.cancel)
    t.start()
    a = err(client.execute, "select pg_sleep(10)")
    t.join()
    t = threading.Timer(0.3, lambda: client.cancel_safe(timeout=5))
    t.start()
    b = err(client.execute, "select pg_sleep(10)")
    t.join()
    return (a, b, client.execute("select 1").fetchone())


@case
def cancel_in_txn():
    client = connect()
    client.execute("select 1")
    t = threading.Timer(0.3, client.cancel_safe)
    t.start()
    a = err(client.execute, "select pg_sleep(10)")
    t.join()
    return (a, client.pgconn.transaction_status)


@case
def info():
    client = connect(options="-c search_path=abc,public -c statement_timeout=12345", application_name="me")
    i = client.info
    return (
        i.dbname,
        i.user,
        i.server_version,
        i.encoding,
        i.timezone,
        i.parameter_status("application_name"),
        i.parameter_status("search_path"),
        client.execute("show search_path").fetchone(),
        client.execute("show statement_timeout").fetchone(),
        i.backend_pid == client.execute("select pg_backend_pid()").fetchone()[0],
        sorted(
            (
                cursor
                for cursor in [
                    "server_version",
                    "client_encoding",
                    "DateStyle",
                    "IntervalStyle",
                    "TimeZone",
                    "integer_datetimes",
                    "is_superuser",
                    "session_authorization",
                    "standard_conforming_strings",
                    "in_hot_standby",
                    "default_transaction_read_only",
                    "server_encoding",
                ]
                if i.parameter_status(cursor)
            )
        ),
        [
            i.parameter_status(cursor)
            for cursor in ["is_superuser", "session_authorization", "TimeZone", "DateStyle", "in_hot_standby"]
        ],
    )


@case
def options_bad():
    return (err(lambda: connect(options="-c nosuch=1")), err(lambda: connect(options="-c work_mem=foo")))


@case
def client_encoding():
    client = connect(client_encoding="latin1")
    a = client.info.encoding
    client.execute("set client_encoding to utf8")
    b = client.info.encoding
    client.rollback()
    d = client.info.encoding
    return (
        a,
        b,
        d,
        client.execute("select chr(233)").fetchone(),
        err(lambda: client.execute("select chr(8364)").fetchone()),
    )


@case
def encoding_sqlascii():
    client = connect(client_encoding="sqlascii")
    return client.execute("select chr(8364)").fetchone()


@case
def isolation():
    client = connect()
    out = []
    for level in psycopg.IsolationLevel:
        client.isolation_level = level
        out.append(client.execute("show transaction_isolation").fetchone())
        client.rollback()
    client.isolation_level = None
    client.read_only = True
    client.deferrable = True
    out.append(
        client.execute(
            "select current_setting('transaction_read_only'), current_setting('transaction_deferrable')"
        ).fetchone()
    )
    out.append(err(client.execute, "create table zz(a int)"))
    return out


@case
def default_isolation():
    client = connect(autocommit=True)
    client.execute("set default_transaction_isolation to serializable")
    client.autocommit = False
    a = client.execute("show transaction_isolation").fetchone()
    client.rollback()
    return a


@case
def transaction_blocks():
    out = []
    with connect() as client:
        client.execute("create temp table tb(a int)")
        with client.transaction():
            client.execute("insert into tb values(1)")
            with client.transaction(force_rollback=True):
                client.execute("insert into tb values(2)")
            try:
                with client.transaction("x"):
                    client.execute("insert into tb values(3)")
                    client.execute("select 1/0")
            except psycopg.Error as e:
                out.append(e.sqlstate)
            with client.transaction():
                raise psycopg.Rollback()
        return (out, client.execute("select array_agg(a) from tb").fetchone())


@case
def types_roundtrip():
    with connect() as client:
        v = [
            1,
            2**40,
            2**70,
            1.5,
            "x",
            b"\x00\x01",
            None,
            True,
            datetime.date(2020, 1, 1),
            datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
            datetime.timedelta(days=1, seconds=3),
            uuid.UUID(int=7),
            [1, 2],
            [["a"], ["b"]],
            Jsonb({"a": 1}),
            datetime.time(1, 2),
        ]
        out = []
        for b in (False, True):
            cursor = client.cursor(binary=b)
            for x in v:
                for f in ("%s", "%b", "%t"):
                    try:
                        out.append(str(cursor.execute("select " + f, [x]).fetchone()[0]))
                    except psycopg.Error as e:
                        out.append(e.sqlstate or str(e))
                        client.rollback()
                    except Exception as e:
                        out.append(type(e).__name__)
        return out


@case
def composite_enum_range():
    with connect() as client:
        client.execute(
            "drop type if exists p3c cascade; drop type if exists p3e cascade; drop type if exists p3r cascade; create type p3c as (a int, b text); create type p3e as enum('x','y'); create type p3r as range(subtype=float8)"
        )
        i = CompositeInfo.fetch(client, "p3c")
        register_composite(i, client)
        e = EnumInfo.fetch(client, "p3e")
        register_enum(e, client)
        r = RangeInfo.fetch(client, "p3r")
        register_range(r, client)
        out = [
            tuple(client.execute("select (1,'x')::p3c").fetchone()[0]),
            client.execute("select 'x'::p3e, %s", [e.enum.y]).fetchone()[0].name,
            str(client.execute("select p3r(1,2)").fetchone()[0]),
        ]
        client.rollback()
        return out


@case
def multi_statement():
    with connect() as client:
        cursor = client.execute(
            "select 1; select 2; create temp table ms(a int); insert into ms values (1),(2); select * from ms"
        )
        out = []
        while True:
            out.append(
                (cursor.statusmessage, cursor.rowcount, cursor.fetchall() if cursor.description else None)
            )
            if not cursor.nextset():
                break
        return out


@case
def statusmessages():
    with connect() as client:
        return [
            client.execute(s).statusmessage
            for s in [
                "create temp table sm(a int)",
                "insert into sm values (1),(2)",
                "update sm set a=3",
                "delete from sm",
                "select 1",
                "lock table sm",
                "savepoint a",
                "release a",
                "set work_mem to '2MB'",
                "reset work_mem",
                "show work_mem",
                "declare c cursor for select 1",
                "fetch c",
                "move c",
                "close c",
                "truncate sm",
                "explain select 1",
                "prepare p as select 1",
                "execute p",
                "deallocate p",
                "listen a",
                "unlisten *",
                "notify a",
                "discard plans",
                "commit and chain",
                "rollback",
            ]
        ]


@case
def raw_and_client_cursor():
    with connect() as client:
        return (
            RawCursor(client).execute("select $1::int + $2", [1, 2]).fetchone(),
            ClientCursor(client).execute("select %s, %s", [1, "x'y"]).fetchone(),
        )


@case
def description():
    with connect() as client:
        cursor = client.execute("select 1 as a, 'x'::varchar(10) as b, 1.5::numeric(10,2) as c, now() as d")
        return [
            (d.name, d.type_code, d.display_size, d.internal_size, d.precision, d.scale)
            for d in cursor.description
        ]


@case
def describe_prepared():
    with connect() as client:
        p = client.pgconn
        p.exec_(b"begin")
        a = p.prepare(b"nm", b"select $1::int4, $2::text")
        d = p.describe_prepared(b"nm")
        return (
            a.status,
            d.nparams,
            [d.param_type(i) for i in range(d.nparams)],
            [d.fname(i) for i in range(d.nfields)],
            p.exec_prepared(b"nm", [b"1", b"x"]).get_value(0, 1),
        )


@case
def describe_portal():
    with connect() as client:
        p = client.pgconn
        p.exec_(b"begin")
        p.exec_(b"declare dp cursor for select 1 as foo")
        d = p.describe_portal(b"dp")
        return (d.status, [d.fname(i) for i in range(d.nfields)])


@case
def close_prepared():
    client = connect()
    p = client.pgconn
    p.prepare(b"cp", b"select 1")
    r = p.close_prepared(b"cp")
    return (r.status, p.exec_prepared(b"cp", []).status, p.describe_prepared(b"cp").status)


@case
def pq_pipeline_flush():
    client = connect()
    p = client.pgconn
    p.enter_pipeline_mode()
    p.send_query_params(b"select $1::int", [b"1"])
    p.send_query_params(b"select $1::int", [b"2"])
    p.send_flush_request()
    p.flush()
    r = [p.get_result().get_value(0, 0)]
    p.get_result()
    r.append(p.get_result().get_value(0, 0))
    p.get_result()
    p.pipeline_sync()
    r.append(p.get_result().status)
    p.exit_pipeline_mode()
    return r


@case
def pq_fn_large_object():
    with connect() as client:
        o = client.execute("select lo_from_bytea(0,'abc')").fetchone()[0]
        fd = client.execute("select lo_open(%s,393216)", [o]).fetchone()[0]
        r = client.execute("select loread(%s,10)", [fd]).fetchone()
        client.execute("select lo_unlink(%s)", [o])
        return r


@case
def error_diag():
    with connect() as client:
        try:
            client.execute("select *\nfrom nosuch where x = %s", [1])
        except psycopg.Error as e:
            d = e.diag
            return [
                getattr(d, f)
                for f in [
                    "severity",
                    "sqlstate",
                    "message_primary",
                    "statement_position",
                    "source_function",
                    "severity_nonlocalized",
                ]
            ]


@case
def error_constraint():
    with connect() as client:
        client.execute("create temp table ec(a int constraint pos check (a>0) not null)")
        try:
            client.execute("insert into ec values (-1)")
        except psycopg.Error as e:
            d = e.diag
            return [d.constraint_name, d.table_name, d.message_detail]


@case
def terminate():
    client = connect(autocommit=True)
    return (
        err(client.execute, "select pg_terminate_backend(pg_backend_pid())"),
        client.closed,
        client.broken,
    )


@case
def terminate_other():
    client = connect(autocommit=True)
    d = connect(autocommit=True)
    r = d.execute("select pg_terminate_backend(%s)", [client.info.backend_pid]).fetchone()
    time.sleep(0.5)
    return (r, err(client.execute, "select 1"), client.closed)


@case
def idle_session_state():
    client = connect(autocommit=True)
    client.execute("set my.var to 'a'")
    client.execute("create temp table tt(a int)")
    client.execute("select pg_advisory_lock(77)")
    d = connect(autocommit=True)
    r = [
        d.execute("select pg_try_advisory_lock(77)").fetchone(),
        client.execute("show my.var").fetchone(),
        err(d.execute, "show my.var"),
        d.execute("select to_regclass('tt')").fetchone(),
    ]
    client.close()
    time.sleep(0.3)
    r.append(d.execute("select pg_try_advisory_lock(77)").fetchone())
    d.execute("select pg_advisory_unlock(77)")
    return r


@case
def set_role():
    client = connect(autocommit=True)
    client.execute("drop role if exists p3role")
    client.execute("create role p3role")
    client.execute("set role p3role")
    r = [client.execute("select current_user, session_user").fetchone()]
    client.execute("reset role")
    client.execute("set session authorization p3role")
    r.append(client.execute("select current_user, session_user").fetchone())
    r.append(client.info.parameter_status("session_authorization"))
    client.execute("reset session authorization")
    r.append(client.execute("select session_user").fetchone())
    r.append(client.info.parameter_status("session_authorization"))
    client.execute("drop role p3role")
    return r


@case
def timezone():
    client = connect()
    client.execute("set timezone to 'Europe/Rome'")
    a = client.info.timezone
    x = client.execute("select '2020-01-01 00:00+00'::timestamptz").fetchone()[0].isoformat()
    client.rollback()
    return (a, x, client.info.timezone)


@case
def datestyle():
    client = connect(autocommit=True)
    client.execute("set datestyle to 'German'")
    client.execute("set intervalstyle to 'iso_8601'")
    return (
        client.execute("select '2020-02-01'::date::text, '1 day'::interval::text").fetchone(),
        client.info.parameter_status("DateStyle"),
        client.info.parameter_status("IntervalStyle"),
    )


@case
def big_params():
    client = connect()
    return (
        client.execute("select length(%s)", ["x" * 5000000]).fetchone(),
        len(client.execute("select repeat('y',5000000)").fetchone()[0]),
    )


@case
def async_all():

    async def f():
        client = await psycopg.AsyncConnection.connect(URL, autocommit=True)
        async with client.pipeline():
            ks = [await client.execute("select %s", [i]) for i in range(100)]
            r = [(await cursor.fetchone())[0] for cursor in ks]

        async def w():
            await asyncio.sleep(0.2)
            await client.cancel_safe()

        t = asyncio.create_task(w())
        try:
            await client.execute("select pg_sleep(10)")
            e = None
        except psycopg.Error as x:
            e = x.sqlstate
        await t
        try:
            await asyncio.wait_for(client.execute("select pg_sleep(10)"), 0.3)
        except asyncio.TimeoutError:
            e2 = "timeout"
        return (sum(r), e, e2, client.closed)

    return asyncio.run(f())


@case
def pool():
    with ConnectionPool(
        URL,
        min_size=4,
        max_size=8,
        reset=lambda client: client.execute("discard all") if client.autocommit else None,
    ) as p:

        def w(i):
            with p.connection() as client:
                return client.execute("select %s::int", [i]).fetchone()[0]

        with ThreadPoolExecutor(8) as ex:
            return sum(ex.map(w, range(200)))


@case
def lock_timeout_deadlock():
    client = connect()
    d = connect()
    client.execute("create table if not exists ldl(a int primary key)")
    client.commit()
    client.execute("truncate ldl")
    client.execute("insert into ldl values (1),(2)")
    client.commit()
    client.execute("select * from ldl where a=1 for update")
    d.execute("set local lock_timeout to '200ms'")
    e = err(d.execute, "select * from ldl where a=1 for update")
    d.rollback()
    n = err(d.execute, "select * from ldl where a=1 for update nowait")
    client.rollback()
    d.rollback()
    client.execute("drop table ldl")
    client.commit()
    return (e, n)


@case
def statement_timeout():
    client = connect(autocommit=True)
    client.execute("set statement_timeout to '100ms'")
    return (err(client.execute, "select pg_sleep(5)"), client.execute("select 1").fetchone())


@case
def idle_in_txn_timeout():
    client = connect()
    client.execute("set idle_in_transaction_session_timeout to '200ms'")
    client.commit()
    client.execute("select 1")
    time.sleep(0.8)
    return (err(client.execute, "select 1"), client.closed)


@case
def copy_both_formats_types():
    with connect() as client:
        cursor = client.cursor()
        cursor.execute("create temp table cb(a int, b timestamptz, c jsonb, d int[])")
        with cursor.copy("copy cb from stdin (format binary)") as w:
            w.set_types(["int4", "timestamptz", "jsonb", "int4[]"])
            w.write_row((1, datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), Jsonb([1]), [1, 2]))
            w.write_row((None,) * 4)
        with cursor.copy("copy cb to stdout (format binary)") as r:
            r.set_types(["int4", "timestamptz", "jsonb", "int4[]"])
            return [str(x) for x in r.rows()]


@case
def call_proc():
    client = connect(autocommit=True)
    client.execute(
        "create or replace procedure p3p(inout a int) language plpgsql as $$begin a:=a+1; commit; end$$"
    )
    r = client.execute("call p3p(%s)", [1]).fetchone()
    client.execute("drop procedure p3p(int)")
    return r


@case
def set_config_and_local():
    client = connect()
    client.execute("select set_config('my.x','1',false)")
    client.commit()
    a = client.execute("select current_setting('my.x')").fetchone()
    client.rollback()
    client.execute("select set_config(%s,%s,true)", ["my.y", "2"])
    b = client.execute("select current_setting('my.y')").fetchone()
    client.commit()
    return (a, b, client.execute("select current_setting('my.y',true)").fetchone())


@case
def explain_prepared():
    client = connect()
    return client.execute("explain (costs off) select 1").fetchall()


@case
def savepoint_errors():
    client = connect()
    client.execute("savepoint a")
    e = err(client.execute, "select 1/0")
    client.execute("rollback to a")
    return (
        e,
        client.execute("select 1").fetchone(),
        err(client.execute, "release nosuch"),
        client.pgconn.transaction_status,
    )


@case
def commit_failed():
    client = connect()
    err(client.execute, "select 1/0")
    a = err(client.execute, "select 1")
    cursor = client.execute("commit")
    return (a, cursor.statusmessage)


@case
def execute_protocol_name():
    client = connect(autocommit=True)
    client.pgconn.prepare(b"mine", b"select 41+1")
    return (
        client.execute("execute mine").fetchone(),
        client.execute("select name,statement from pg_prepared_statements").fetchall(),
    )


@case
def sql_prepare_then_bind():
    client = connect(autocommit=True)
    client.execute("prepare theirs(int) as select $1+1")
    return (
        client.pgconn.exec_prepared(b"theirs", [b"5"]).get_value(0, 0),
        client.execute("execute theirs(6)").fetchone(),
    )


def result_of(function) -> str:
    """What a case saw, in words; it may hang."""
    results = []

    def run():
        try:
            results.append(repr(function()))
        except Exception as error:
            results.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return results[0] if results else "hangs"


def main():
    global URL
    direct, proxy, direct_file, proxy_file, *names = sys.argv[1:]
    statuses = {direct_file: [], proxy_file: []}
    for function in CASES:
        name = function.__name__
        if names and name not in names:
            continue
        URL = direct
        wanted = result_of(function)
        URL = proxy
        got = result_of(function)
        statuses[direct_file].append(f"passed {name}")
        statuses[proxy_file].append(f"{'passed' if got == wanted else 'failed'} {name}")
        if got != wanted:
            print(f"{name}\n  PostgreSQL: {wanted}\n  proxy:      {got}", flush=True)
    for file, lines in statuses.items():
        with open(file, "w") as out:
            out.write("\n".join(lines) + "\n")


main()
# A case that hangs has a thread that does.
os._exit(0)
