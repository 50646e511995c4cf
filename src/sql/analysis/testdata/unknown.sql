DELETE FROM a WHERE CURRENT OF cur
SELECT
SELECT * FROM ROWS FROM (f(1), g(2)) AS r(a, b), a
SELECT * FROM a *
SELECT * FROM a WHERE x LIKE ANY (ARRAY['a', 'b'])
SELECT * FROM pg_class, ROWS FROM (generate_series(1, 2)) r
SELECT * FROM users, ROWS FROM (generate_series(1, 2)) r
SELECT * FROM users, ROWS FROM (generate_series(1, 2)) r WHERE user_id = 1
SELECT 1 FROM products, ROWS FROM (generate_series(1, 2)) r
SELECT INTO x FROM a
SELECT a.* FROM log a, settings b, ROWS FROM (generate_series(1, 2)) r
SELECT extract(epoch FROM now() - x), date_part('year', y), position('a' in z), substring(z from 1 for 2), trim(both from z), overlay(z placing 'x' from 2 for 1) FROM a
SELECT line FROM settings, ROWS FROM (generate_series(1, 2), generate_series(1, 3)) r
SELECT nextval('s') FROM settings, ROWS FROM (generate_series(1, 2)) r
SELECT query_to_xml('x', true, true, '') FROM log, ROWS FROM (generate_series(1, 2)) r
SELECT xmlelement(name foo, x), xmlforest(x AS y), xmlparse(document '<a/>') FROM a
SELECT xmlparse(document 'x') IS DOCUMENT FROM just_made
SELECT xmlserialize(content line AS text) IS DOCUMENT FROM log
UPDATE products SET name = 'x' WHERE CURRENT OF c
UPDATE settings SET value = 'x' WHERE CURRENT OF c
UPDATE users SET name = 'x' WHERE CURRENT OF c
UPDATE users SET user_id = 5 WHERE CURRENT OF c
WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) CYCLE n SET c USING p SELECT * FROM t, log
WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) CYCLE n SET c USING p SELECT * FROM t, users
