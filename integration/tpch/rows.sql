-- Data like TPC-H's: the same keys, ranges and vocabulary, drawn from hashes of the keys so that every
-- server makes the same rows. SCALE is the number of orders in thousands.
CREATE FUNCTION pick(n bigint, salt text, below bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS
    $$ SELECT abs(hashtextextended(salt || n, 0) % below) $$;
CREATE FUNCTION word(n bigint, salt text, words text[]) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT words[1 + pick(n, salt, cardinality(words))] $$;
INSERT INTO region SELECT i, (ARRAY['AFRICA','AMERICA','ASIA','EUROPE','MIDDLE EAST'])[i + 1], 'c'
    FROM generate_series(0, 4) i;
INSERT INTO nation SELECT i, (ARRAY['ALGERIA','ARGENTINA','BRAZIL','CANADA','EGYPT','ETHIOPIA','FRANCE','GERMANY',
    'INDIA','INDONESIA','IRAN','IRAQ','JAPAN','JORDAN','KENYA','MOROCCO','MOZAMBIQUE','PERU','CHINA','ROMANIA',
    'SAUDI ARABIA','VIETNAM','RUSSIA','UNITED KINGDOM','UNITED STATES'])[i + 1],
    (ARRAY[0,1,1,1,4,0,3,3,2,2,4,4,2,4,0,0,0,1,2,3,4,2,3,3,1])[i + 1], 'c' FROM generate_series(0, 24) i;
INSERT INTO part SELECT i,
    word(i, 'n1', ARRAY['almond','forest','green','azure','blue','lemon']) || ' '
        || word(i, 'n2', ARRAY['green','red','ivory','khaki']),
    'Manufacturer#' || 1 + pick(i, 'm', 5), 'Brand#' || 1 + pick(i, 'm', 5) || 1 + pick(i, 'b', 5),
    word(i, 't1', ARRAY['STANDARD','SMALL','MEDIUM','LARGE','ECONOMY','PROMO']) || ' '
        || word(i, 't2', ARRAY['ANODIZED','BURNISHED','PLATED','POLISHED','BRUSHED']) || ' '
        || word(i, 't3', ARRAY['TIN','NICKEL','BRASS','STEEL','COPPER']),
    1 + pick(i, 's', 50), word(i, 'c1', ARRAY['SM','LG','MED','JUMBO','WRAP']) || ' '
        || word(i, 'c2', ARRAY['CASE','BOX','BAG','JAR','PKG','PACK','CAN','DRUM']),
    900 + i % 1000 + (i % 100) / 100.0, 'c' FROM generate_series(1, SCALE * 133) i;
INSERT INTO supplier SELECT i, 'Supplier#' || lpad(i::text, 9, '0'), 'a' || i, pick(i, 'sn', 25),
    10 + pick(i, 'sn', 25) || '-' || 100 + pick(i, 'sp', 900) || '-555-0000', pick(i, 'sa', 1000000) / 100.0 - 999,
    CASE WHEN pick(i, 'sc', 20) = 0 THEN 'x Customer y Complaints z' ELSE 'c' END
    FROM generate_series(1, SCALE * 7) i;
INSERT INTO partsupp SELECT DISTINCT ON (i, s) i, s, 1 + pick(i * 4 + n, 'q', 9999), pick(i * 4 + n, 'co', 100000) / 100.0, 'c'
    FROM (SELECT i, n, 1 + pick(i * 4 + n, 'ps', SCALE * 7) AS s
        FROM generate_series(1, SCALE * 133) i, generate_series(0, 3) n) x ORDER BY i, s, n;
INSERT INTO customer SELECT i, 'Customer#' || lpad(i::text, 9, '0'), 'a' || i, pick(i, 'cn', 25),
    10 + pick(i, 'cn', 25) || '-' || 100 + pick(i, 'cp', 900) || '-555-0000', pick(i, 'ca', 1000000) / 100.0 - 999,
    word(i, 'cm', ARRAY['AUTOMOBILE','BUILDING','FURNITURE','MACHINERY','HOUSEHOLD']), 'c'
    FROM generate_series(1, SCALE * 100) i;
INSERT INTO orders SELECT i, 1 + pick(i, 'oc', SCALE * 100) / 3 * 3 % (SCALE * 100), word(i, 'os', ARRAY['F','O','P']),
    1000 + pick(i, 'op', 40000000) / 100.0, date '1992-01-01' + pick(i, 'od', 2400)::int,
    word(i, 'opr', ARRAY['1-URGENT','2-HIGH','3-MEDIUM','4-NOT SPECIFIED','5-LOW']), 'Clerk#1', 0,
    CASE WHEN pick(i, 'ocm', 50) = 0 THEN 'a special b requests c' ELSE 'c' END
    FROM generate_series(1, SCALE * 1000) i;
INSERT INTO lineitem SELECT o, ps_partkey, ps_suppkey, n, 1 + pick(k, 'lq', 50), 1000 + pick(k, 'le', 9000000) / 100.0,
    pick(k, 'ld', 11) / 100.0, pick(k, 'lt', 9) / 100.0, word(k, 'lr', ARRAY['R','A','N']), word(k, 'll', ARRAY['O','F']),
    day + 1 + pick(k, 'ls', 121)::int, day + 30 + pick(k, 'lc', 61)::int, day + 2 + pick(k, 'ls', 121)::int + pick(k, 'lv', 30)::int,
    word(k, 'li', ARRAY['DELIVER IN PERSON','COLLECT COD','NONE','TAKE BACK RETURN']),
    word(k, 'lm', ARRAY['REG AIR','AIR','RAIL','SHIP','TRUCK','MAIL','FOB']), 'c'
    FROM (SELECT o_orderkey AS o, o_orderdate AS day, n, o_orderkey * 8 + n AS k,
            1 + pick(o_orderkey * 8 + n, 'lp', (SELECT count(*) FROM partsupp)) AS number
        FROM orders, generate_series(1, 7) n WHERE n <= 1 + pick(o_orderkey, 'n', 7)) x
    JOIN (SELECT row_number() OVER (ORDER BY ps_partkey, ps_suppkey) AS number, ps_partkey, ps_suppkey FROM partsupp) p
        USING (number);
ANALYZE;
