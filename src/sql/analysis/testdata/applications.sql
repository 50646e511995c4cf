SELECT "users"."id", "users"."name" FROM "users" WHERE "users"."id" = $1 LIMIT $2
SELECT "users".* FROM "users" INNER JOIN "orders" ON "orders"."user_id" = "users"."id" WHERE "orders"."total" > 5 ORDER BY "users"."id" ASC LIMIT 1
SELECT 1 AS one FROM "users" WHERE "users"."email" = $1 LIMIT $2
SELECT COUNT(*) FROM (SELECT DISTINCT "users"."id" FROM "users" LEFT OUTER JOIN "orders" ON "orders"."user_id" = "users"."id") subquery_for_count
INSERT INTO "users" ("name", "created_at", "updated_at") VALUES ($1, $2, $3) RETURNING "id"
UPDATE "users" SET "name" = $1, "updated_at" = $2 WHERE "users"."id" = $3
DELETE FROM "users" WHERE "users"."id" = $1
SELECT "auth_user"."id" FROM "auth_user" WHERE ("auth_user"."is_active" AND UPPER("auth_user"."username"::text) LIKE UPPER('a%')) ORDER BY "auth_user"."username" ASC
SELECT "a"."id", (SELECT U0."x" FROM "b" U0 WHERE U0."a_id" = ("a"."id") ORDER BY U0."x" DESC LIMIT 1) AS "latest" FROM "a"
SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull FROM pg_attribute a LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE a.attrelid = '"users"'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
SELECT t.oid, t.typname FROM pg_type as t LEFT JOIN pg_range as r ON oid = rngtypid WHERE t.typname IN ('int2', 'int4') OR t.typtype IN ('r', 'e', 'd')
SELECT c.relname FROM pg_class c LEFT JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ANY (current_schemas(false)) AND c.relname = 'x' AND c.relkind IN ('r','p')
SELECT NULL AS TABLE_CAT, n.nspname AS TABLE_SCHEM, c.relname AS TABLE_NAME, CASE n.nspname ~ '^pg_' OR n.nspname = 'information_schema' WHEN true THEN 'x' ELSE NULL END AS TABLE_TYPE, d.description AS REMARKS FROM pg_catalog.pg_namespace n, pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_description d ON (c.oid = d.objoid AND d.objsubid = 0) WHERE c.relnamespace = n.oid ORDER BY TABLE_TYPE
SELECT ns.nspname, t.oid, t.typname, t.typtype, t.typnotnull, t.elemtypoid FROM (SELECT typ.oid, typ.typnamespace, typ.typname, typ.typtype, typ.typrelid, typ.typnotnull, typ.relkind, elemtyp.oid AS elemtypoid FROM (SELECT typ.oid, typnamespace, typname, typrelid, typnotnull, relkind, typelem AS elemoid, CASE WHEN proc.proname='array_recv' THEN 'a' ELSE typ.typtype END AS typtype FROM pg_type AS typ LEFT JOIN pg_class AS cls ON (cls.oid = typ.typrelid) LEFT JOIN pg_proc AS proc ON proc.oid = typ.typreceive) AS typ LEFT JOIN pg_type AS elemtyp ON elemtyp.oid = typ.elemoid) AS t JOIN pg_namespace AS ns ON (ns.oid = t.typnamespace)
select user0_.id as id1_0_, user0_.name as name2_0_ from users user0_ where user0_.id=? 
select u1_0.id,u1_0.name from users u1_0 where u1_0.id=$1
select nextval('users_seq')
SELECT abalance FROM pgbench_accounts WHERE aid = 1
UPDATE pgbench_accounts SET abalance = abalance + -5 WHERE aid = 7
UPDATE pgbench_tellers SET tbalance = tbalance + 5 WHERE tid = 1
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, 7, 5, CURRENT_TIMESTAMP)
SELECT o.n, p.partstrat, pg_catalog.count(i.inhparent) FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON (n.oid = c.relnamespace) CROSS JOIN LATERAL (SELECT pg_catalog.array_position(pg_catalog.current_schemas(true), n.nspname)) AS o(n) LEFT JOIN pg_catalog.pg_partitioned_table AS p ON (p.partrelid = c.oid) LEFT JOIN pg_catalog.pg_inherits AS i ON (c.oid = i.inhparent) WHERE c.relname = 'x' AND o.n IS NOT NULL GROUP BY 1, 2 ORDER BY 1 ASC LIMIT 1
SELECT * FROM a WHERE x IS DISTINCT FROM y
SELECT * FROM a WHERE x IS NOT DISTINCT FROM (SELECT z FROM b)
SELECT * FROM a WHERE (x, y) IN (SELECT x, y FROM b)
SELECT * FROM a WHERE (x, y) OVERLAPS (now(), now())
SELECT * FROM a WHERE x ~ '^b' AND y !~* 'c' AND z @> '{"a": 1}' AND w ?| array['a', 'b'] AND v #>> '{a,b}' = 'x'
SELECT * FROM a WHERE x -> 'a' ->> 'b' = 'c'
SELECT * FROM a WHERE x @@ to_tsquery('b & c')
SELECT * FROM a WHERE EXISTS (SELECT FROM b WHERE b.x = a.x)
SELECT * FROM a WHERE x > ALL (SELECT y FROM b)
SELECT * FROM a WHERE x = SOME (SELECT y FROM b)
SELECT * FROM a WHERE x LIKE ANY (ARRAY['a', 'b'])
SELECT * FROM a WHERE NOT EXISTS (SELECT 1 FROM b) AND x NOT BETWEEN 1 AND 2 AND y NOT LIKE 'c' AND z NOT IN (1, 2)
SELECT a.*, b.x FROM a, b, c WHERE a.id = b.id AND b.id = c.id
SELECT * FROM a JOIN b ON a.id = b.id LEFT JOIN c ON c.id = b.id RIGHT JOIN d USING (id) FULL OUTER JOIN e USING (id, k) CROSS JOIN f NATURAL JOIN g
SELECT * FROM a, LATERAL (SELECT * FROM b WHERE b.id = a.id LIMIT 1) x
SELECT * FROM a LEFT JOIN LATERAL (SELECT max(y) FROM b WHERE b.id = a.id) x ON true
SELECT * FROM a, generate_series(1, 10) WITH ORDINALITY AS g(x, n)
SELECT * FROM a, unnest(a.arr) WITH ORDINALITY u(x, n)
SELECT * FROM json_to_recordset('[{"a":1}]') AS x(a int, b text)
SELECT * FROM jsonb_each((SELECT doc FROM a LIMIT 1)) e
SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v(id, name) JOIN a USING (id)
SELECT x, count(*) FROM a GROUP BY x HAVING count(*) > (SELECT avg(y) FROM b) ORDER BY count(*) DESC NULLS LAST, x USING <
SELECT x, y, grouping(x, y), sum(z) FROM a GROUP BY GROUPING SETS ((x, y), (x), ())
SELECT x, y, sum(z) FROM a GROUP BY CUBE (x, y)
SELECT x, y, sum(z) FROM a GROUP BY ROLLUP (x, y), z
SELECT x, row_number() OVER (PARTITION BY y ORDER BY z DESC) rn, lag(x, 1) OVER w, sum(x) FILTER (WHERE x > 0) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM a WINDOW w AS (PARTITION BY y)
SELECT DISTINCT ON (x) x, y FROM a ORDER BY x, y DESC
SELECT string_agg(DISTINCT x, ', ' ORDER BY x), array_agg(y ORDER BY z), percentile_disc(0.5) WITHIN GROUP (ORDER BY y) FROM a
SELECT CASE WHEN x = 1 THEN (SELECT y FROM b) WHEN x = 2 THEN 'c' ELSE NULL END, CASE x WHEN 1 THEN 2 END FROM a
SELECT CAST(x AS numeric(10, 2)), x::varchar(3)::text, y::timestamp with time zone AT TIME ZONE 'UTC', interval '1 day' * 2, date '2020-01-01' + 1 FROM a
SELECT extract(epoch FROM now() - x), date_part('year', y), position('a' in z), substring(z from 1 for 2), trim(both from z), overlay(z placing 'x' from 2 for 1) FROM a
SELECT coalesce(x, y, 0), nullif(x, 0), greatest(x, y), least(x, y) FROM a
SELECT ARRAY[1, 2, 3], ARRAY(SELECT x FROM a), ARRAY[[1, 2], [3, 4]], arr[1], arr[1:2], (arr)[1] FROM b
SELECT ROW(x, y), (x, y), ROW(a.*) FROM a
SELECT (a).x, (f(a)).y FROM a
SELECT x FROM a UNION SELECT y FROM b UNION ALL SELECT z FROM c INTERSECT SELECT w FROM d EXCEPT SELECT v FROM e ORDER BY 1 LIMIT 10
(SELECT x FROM a ORDER BY x LIMIT 1) UNION ALL (SELECT y FROM b ORDER BY y LIMIT 1)
WITH x AS (SELECT * FROM a), y AS MATERIALIZED (SELECT * FROM x), z AS NOT MATERIALIZED (SELECT * FROM b) SELECT * FROM y JOIN z ON true
WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 100) SELECT sum(n) FROM t
WITH RECURSIVE tree AS (SELECT id, parent_id FROM nodes WHERE id = $1 UNION ALL SELECT n.id, n.parent_id FROM nodes n JOIN tree t ON n.parent_id = t.id) SELECT * FROM tree
WITH moved AS (DELETE FROM a WHERE x < 5 RETURNING *) INSERT INTO b SELECT * FROM moved
WITH up AS (UPDATE a SET x = 1 RETURNING *), ins AS (INSERT INTO b SELECT x FROM up RETURNING *) SELECT * FROM ins
WITH a AS (SELECT 1) SELECT * FROM a, s.a
SELECT * FROM a FOR UPDATE OF a NOWAIT
SELECT * FROM a, b WHERE a.id = b.id FOR NO KEY UPDATE OF a, b SKIP LOCKED
SELECT * FROM a FOR SHARE FOR KEY SHARE
SELECT * FROM a OFFSET 5 ROWS FETCH NEXT 10 ROWS ONLY
SELECT * FROM a FETCH FIRST ROW WITH TIES
SELECT * FROM a LIMIT ALL OFFSET 0
SELECT * FROM a LIMIT (SELECT count(*) FROM b)
SELECT * FROM a TABLESAMPLE BERNOULLI (10) REPEATABLE (1)
SELECT * FROM ONLY a
SELECT * FROM a *
TABLE a
TABLE s.a ORDER BY 1
SELECT INTO x FROM a
SELECT * INTO TEMP x FROM a WHERE y = 1
SELECT * INTO UNLOGGED TABLE s.x FROM a
VALUES (1, (SELECT max(x) FROM a)), (2, 3)
INSERT INTO a DEFAULT VALUES
INSERT INTO a VALUES (DEFAULT, 1, 'x', NULL, now(), (SELECT max(x) FROM b))
INSERT INTO a (x, y) VALUES (1, 2), (3, 4) RETURNING x AS id, (SELECT 1 FROM c)
INSERT INTO a (x) SELECT y FROM b WHERE z IN (SELECT w FROM c)
INSERT INTO a AS t (x) VALUES (1) ON CONFLICT (x) DO UPDATE SET y = excluded.y, z = (SELECT max(w) FROM b) WHERE t.y <> excluded.y
INSERT INTO a (x) VALUES (1) ON CONFLICT ON CONSTRAINT a_pkey DO NOTHING
INSERT INTO a (x) VALUES (1) ON CONFLICT (lower(y), (z + 1)) WHERE w DO NOTHING
INSERT INTO a OVERRIDING SYSTEM VALUE SELECT * FROM b
INSERT INTO a (SELECT * FROM b)
INSERT INTO a TABLE b
INSERT INTO a WITH x AS (SELECT * FROM b) SELECT * FROM x
WITH x AS (SELECT * FROM b) INSERT INTO a SELECT * FROM x
UPDATE a SET x = x + 1, y = DEFAULT, (z, w) = (1, 2), (u, v) = (SELECT p, q FROM b WHERE b.id = a.id)
UPDATE a AS t SET x = b.x FROM b JOIN c ON c.id = b.id WHERE t.id = b.id RETURNING t.*, b.x
UPDATE ONLY a SET x = 1
UPDATE a SET arr[1] = 2, obj.field = 3
UPDATE a SET x = (SELECT y FROM b WHERE b.id = a.id) WHERE EXISTS (SELECT 1 FROM c)
DELETE FROM a USING b, c WHERE a.id = b.id AND b.id = c.id RETURNING *
DELETE FROM ONLY a t WHERE t.id IN (SELECT id FROM b)
DELETE FROM a WHERE CURRENT OF cur
MERGE INTO a t USING b s ON t.id = s.id WHEN MATCHED AND s.x > 1 THEN UPDATE SET x = s.x WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id, x) VALUES (s.id, s.x)
MERGE INTO a USING (SELECT * FROM b JOIN c USING (id)) s ON a.id = s.id WHEN NOT MATCHED THEN DO NOTHING
SELECT current_user, session_user, current_schema, current_catalog, current_date, current_time(0), localtimestamp, user, current_role
SELECT x IS NULL, y ISNULL, z NOTNULL, w IS NOT NULL, v IS TRUE, u IS NOT UNKNOWN FROM a
SELECT x COLLATE "C" < y COLLATE "de_DE", z::text COLLATE "C" FROM a
SELECT inet '10.0.0.1' <<= cidr '10.0.0.0/8', point '(1,2)' <-> point '(3,4)', box '(1,1),(2,2)' FROM a
SELECT 1 /* comment /* nested */ */ + 2 -- trailing
SELECT 'it''s', E'\'', $tag$ it's $tag$, U&'d\0061t', B'101', X'1F', N'x', 1e10, .5, 0x1F, 1_000 FROM a
SELECT "Weird ""Name""".x FROM "Weird ""Name""" , "Sch ema"."T"
SELECT U&"\0061".x FROM U&"\0061"
SELECT x FROM a WHERE y = $1 AND z = ANY ($2) AND w = $3::int AND v BETWEEN $4 AND $5
SELECT f(VARIADIC ARRAY[1, 2]), g(a => 1, b := 2), h(*), s.i(x) FROM a
SELECT xmlelement(name foo, x), xmlforest(x AS y), xmlparse(document '<a/>') FROM a
SELECT json_object('a': x, 'b': y), json_build_object('a', 1), jsonb_path_query(x, '$.a') FROM a
SELECT * FROM ROWS FROM (f(1), g(2)) AS r(a, b), a
SELECT * FROM a JOIN b USING (x) AS j WHERE j.x = 1
SELECT * FROM (a JOIN b USING (x)) AS j, c
SELECT * FROM ((a JOIN b ON true) JOIN (c JOIN d ON true) ON true)
SELECT * FROM a x JOIN b y JOIN c z ON y.id = z.id ON x.id = y.id
SELECT * FROM a, b LEFT JOIN c ON b.id = c.id, d
SELECT count(*) FROM a WHERE x OPERATOR(pg_catalog.=) 1
SELECT - -1, +1, @ -5, !! 5, |/ 25, ~ 1, 2 ^ 3, 5 % 2, 1 << 2, 7 & 3, 7 | 8, 5 # 3
SELECT NOT x AND y OR NOT (z OR w) FROM a
SELECT x AT TIME ZONE 'UTC', timezone('UTC', x) FROM a
SELECT x BETWEEN SYMMETRIC 1 AND y FROM a
SELECT grouping(x) FROM a GROUP BY DISTINCT x
SELECT a FROM a a GROUP BY a
SELECT x AS "order", y AS select_, z "limit" FROM "table"
SELECT name, value, type, text, date, time, timestamp, user_ FROM a
SELECT path, line, point, box, circle FROM a
SELECT key, level, role, state, zone, action, "end", "start" FROM a
SELECT year, month, day, hour, minute, second FROM a WHERE year = 2020 AND day > 1
SELECT t.value FROM a AS t(value) WHERE t.value > 1
SELECT sum(x) OVER (ORDER BY y RANGE BETWEEN '1 day' PRECEDING AND INTERVAL '1 day' FOLLOWING EXCLUDE CURRENT ROW) FROM a
SELECT sum(x) OVER (ORDER BY y GROUPS BETWEEN 1 PRECEDING AND UNBOUNDED FOLLOWING) FROM a
SELECT x FROM a WHERE y IN (SELECT z FROM b WHERE w IN (SELECT v FROM c WHERE u = (SELECT max(t) FROM d)))
SELECT (SELECT (SELECT (SELECT x FROM a)))
SELECT x FROM a ORDER BY (SELECT y FROM b LIMIT 1)
SELECT x FROM a GROUP BY (SELECT y FROM b LIMIT 1)
SELECT count(*) FILTER (WHERE EXISTS (SELECT 1 FROM b)) FROM a
SELECT sum(x) OVER (PARTITION BY (SELECT y FROM b LIMIT 1)) FROM a
SELECT array_agg(x ORDER BY (SELECT y FROM b LIMIT 1)) FROM a
SELECT * FROM f((SELECT x FROM a))
SELECT * FROM a JOIN b ON EXISTS (SELECT 1 FROM c WHERE c.x = b.x)
SELECT x FROM a WHERE y = CASE WHEN EXISTS (SELECT 1 FROM b) THEN 1 ELSE 2 END
SELECT x FROM a WHERE (SELECT true FROM b) IS TRUE
SELECT x FROM a WHERE y BETWEEN (SELECT 1 FROM b) AND (SELECT 2 FROM c)
SELECT x FROM a WHERE y LIKE (SELECT z FROM b) ESCAPE '!'
SELECT ARRAY[(SELECT x FROM a)], ROW((SELECT y FROM b)), ((SELECT z FROM c))::text, -(SELECT w FROM d), (SELECT v FROM e) COLLATE "C"
SELECT (SELECT doc FROM a) -> 'x', arr[(SELECT i FROM b)], (SELECT t FROM c) AT TIME ZONE 'UTC' FROM d
INSERT INTO a (x) VALUES ((SELECT y FROM b)), (1 + (SELECT z FROM c))
DELETE FROM a WHERE x = (SELECT y FROM b) RETURNING (SELECT z FROM c)
UPDATE a SET x = 1 FROM (SELECT * FROM b) s WHERE a.id = s.id AND s.k IN (SELECT k FROM c)
