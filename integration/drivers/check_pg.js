// node-postgres against the URL in argv: parameters, named statements, transactions, a pool.
const assert = require('node:assert');
const { Client, Pool } = require('pg');

async function main(url) {
  const client = new Client({ connectionString: url });
  await client.connect();
  for (let id = 1; id < 30; id++) {
    const { rows } = await client.query('SELECT name FROM users WHERE user_id = $1', [id]);
    assert.deepStrictEqual(rows, [{ name: `user ${id}` }]);
  }
  for (let id = 1; id < 30; id++) {
    const { rows } = await client.query({
      name: 'total',
      text: 'SELECT total FROM orders WHERE user_id = $1 AND order_id = $2',
      values: [id, 1],
    });
    assert.deepStrictEqual(rows, [{ total: `${id}.00` }]);
  }
  await client.query('INSERT INTO users VALUES ($1, $2, $3)', [1002, 'größe €', null]);
  await client.query('BEGIN');
  await client.query('UPDATE users SET name = $1 WHERE user_id = $2', ['lost', 1002]);
  await client.query('ROLLBACK');
  const kept = await client.query('SELECT name, born FROM users WHERE user_id = 1002');
  assert.deepStrictEqual(kept.rows, [{ name: 'größe €', born: null }]);
  await assert.rejects(
    client.query('INSERT INTO users VALUES ($1, $2)', [1002, 'again']),
    { code: '23505', constraint: 'users_pkey' },
  );
  await assert.rejects(client.query('SELEC 1'), { code: '42601', position: '1' });
  await client.query('DELETE FROM users WHERE user_id = 1002');
  const some = await client.query('SELECT user_id FROM users WHERE user_id < 10');
  assert.strictEqual(some.rowCount, 9);
  await client.end();

  const pool = new Pool({ connectionString: url, max: 8 });
  const read = async (id) => {
    const { rows } = await pool.query('SELECT name FROM users WHERE user_id = $1', [id]);
    assert.deepStrictEqual(rows, [{ name: `user ${id}` }]);
  };
  await Promise.all(Array.from({ length: 300 }, (_, i) => read(1 + (i % 29))));
  await pool.end();
  console.log('done');
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
