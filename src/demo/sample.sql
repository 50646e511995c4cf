-- The e-commerce sample: a psql script that gives one shard its tables and rows.
--
-- It expects two variables: :here, a condition on "user_id" that holds for the rows of this shard,
-- and :home, true on the shard that holds the home tables. Every value is computed from its row's
-- number, by hashes where it shall look random, so that the shards agree without talking to each
-- other and every run gives the same rows.

\set ON_ERROR_STOP on
BEGIN;

-- Sharded by user_id.
CREATE TABLE users (
    user_id    bigint PRIMARY KEY,
    name       text NOT NULL,
    email      text NOT NULL,
    country    text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Replicated: the same rows on every shard.
CREATE TABLE products (
    product_id int PRIMARY KEY,
    name       text NOT NULL,
    category   text NOT NULL,
    price      numeric(10,2) NOT NULL
);

-- Sharded by user_id, so that a user and the user's orders are on one shard.
CREATE TABLE orders (
    user_id    bigint NOT NULL REFERENCES users,
    order_id   bigint NOT NULL,
    status     text NOT NULL DEFAULT 'new',
    total      numeric(10,2) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, order_id)
);

-- Co-located with users and orders: it carries their key.
CREATE TABLE order_items (
    user_id    bigint NOT NULL,
    order_id   bigint NOT NULL,
    product_id int NOT NULL REFERENCES products,
    quantity   int NOT NULL,
    price      numeric(10,2) NOT NULL,
    PRIMARY KEY (user_id, order_id, product_id),
    FOREIGN KEY (user_id, order_id) REFERENCES orders
);

INSERT INTO products
SELECT id,
       (ARRAY['Plain','Striped','Light','Warm','Small','Large','Quiet','Bright'])[1 + (h & 7)]
         || ' ' || (ARRAY['mug','lamp','chair','scarf','notebook','kettle','blanket'])[1 + id % 7],
       (ARRAY['kitchen','home','home','clothes','office','kitchen','home'])[1 + id % 7],
       2 + (h >> 8 & 16383) / 100.0
  FROM generate_series(1, 200) AS id, hashint8extended(id, 1) AS h;

INSERT INTO users
SELECT user_id,
       first || ' ' || last,
       lower(first || '.' || last) || user_id || '@example.com',
       (ARRAY['DE','FR','GB','IT','JP','US'])[1 + user_id % 6],
       timestamptz '2024-01-01 00:00:00+00' + user_id * interval '4 hours'
  FROM (SELECT user_id,
               (ARRAY['Ada','Alan','Barbara','Charles','Donald','Edsger','Edgar','Frances','Grace',
                      'Jim','Karen','Leslie','Michael'])[1 + user_id % 13] AS first,
               (ARRAY['Allen','Codd','Dijkstra','Gray','Hopper','Jones','Knuth','Lamport','Liskov',
                      'Lovelace','Shannon'])[1 + user_id % 11] AS last
          FROM generate_series(1::bigint, 3000) AS user_id) AS people
 WHERE :here;

-- Every third order is one of a few users who buy more than the others.
WITH numbered AS (
    SELECT order_id, h,
           1 + (h >> 8 & 65535) % CASE order_id % 3 WHEN 0 THEN 150 ELSE 3000 END AS user_id
      FROM generate_series(1::bigint, 9000) AS order_id, hashint8extended(order_id, 2) AS h
), bought AS (
    SELECT user_id, order_id, product_id, 1 + (h >> item & 3) AS quantity, price
      FROM numbered
      CROSS JOIN LATERAL generate_series(0, (h & 3)::int) AS item
      JOIN products ON product_id = 1 + ((h >> 24 & 65535) + item * 37) % 200
     WHERE :here
), placed AS (
    INSERT INTO orders
    SELECT user_id, order_id,
           (ARRAY['new','paid','shipped','shipped','shipped','returned'])[1 + order_id % 6],
           sum(quantity * price),
           timestamptz '2025-06-01 00:00:00+00' + order_id * interval '20 minutes'
      FROM bought
     GROUP BY user_id, order_id
)
INSERT INTO order_items TABLE bought;

\if :home
CREATE TABLE settings (
    name  text PRIMARY KEY,
    value text NOT NULL
);
INSERT INTO settings VALUES ('currency', 'EUR'), ('shop_name', 'The Sample Shop'), ('vat_percent', '19');
\endif

COMMIT;
ANALYZE users, products, orders, order_items;
