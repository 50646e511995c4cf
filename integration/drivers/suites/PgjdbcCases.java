import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;

/** Sessions of pgjdbc: prints a line for each case with what it saw. Arguments: URL of the database. */
public final class PgjdbcCases {
    interface Case {
        Object run(Connection client) throws Exception;
    }

    static String url;

    static Connection connect(String options) throws SQLException {
        return DriverManager.getConnection(url + options);
    }

    static void show(String name, String options, Case body) {
        Object seen;
        try (Connection client = connect(options)) {
            seen = body.run(client);
        } catch (SQLException error) {
            seen = error.getSQLState() + " " + error.getMessage().split("\n")[0];
        } catch (Exception error) {
            seen = error.toString();
        }
        System.out.println(name + ": " + seen);
    }

    static List<String> rows(ResultSet result) throws SQLException {
        List<String> rows = new ArrayList<>();
        int width = result.getMetaData().getColumnCount();
        while (result.next()) {
            StringJoiner row = new StringJoiner("|");
            for (int column = 1; column <= width; column++) {
                row.add(String.valueOf(result.getString(column)));
            }
            rows.add(row.toString());
        }
        return rows;
    }

    static List<String> query(Connection client, String sql) throws SQLException {
        try (Statement statement = client.createStatement()) {
            return rows(statement.executeQuery(sql));
        }
    }

    static void run(Connection client, String sql) throws SQLException {
        try (Statement statement = client.createStatement()) {
            statement.execute(sql);
        }
    }

    static String state(Connection client, String sql) {
        try {
            run(client, sql);
            return "none";
        } catch (SQLException error) {
            return error.getSQLState();
        }
    }

    public static void main(String[] arguments) throws Exception {
        url = arguments[0];
        try (Connection client = connect("")) {
            run(client, "DROP TABLE IF EXISTS jdbc");
            run(client, "CREATE TABLE jdbc (id int PRIMARY KEY, body text, at timestamptz, data bytea)");
        }
        for (String mode : List.of("simple", "extended", "extendedForPrepared", "extendedCacheEverything")) {
            String options = "&preferQueryMode=" + mode;
            statements(mode, options);
            transactions(mode, options);
        }
        others();
    }

    static void statements(String mode, String options) {
        show(mode + " prepared, beyond the threshold", options, client -> {
            List<String> all = new ArrayList<>();
            try (PreparedStatement sum = client.prepareStatement("SELECT ?::int + ?::int AS sum")) {
                for (int i = 0; i < 12; i++) {
                    sum.setInt(1, i);
                    sum.setInt(2, i);
                    all.addAll(rows(sum.executeQuery()));
                }
            }
            return all;
        });
        show(mode + " batch", options, client -> {
            run(client, "DELETE FROM jdbc");
            try (PreparedStatement insert = client.prepareStatement("INSERT INTO jdbc VALUES (?, ?, now(), ?)")) {
                for (int i = 0; i < 300; i++) {
                    insert.setInt(1, i);
                    insert.setString(2, "body " + i);
                    insert.setBytes(3, new byte[] {0, (byte) i});
                    insert.addBatch();
                }
                int[] counts = insert.executeBatch();
                return counts.length + " " + query(client, "SELECT count(*), sum(id), max(encode(data, 'hex')) FROM jdbc");
            }
        });
        show(mode + " batch with an error", options, client -> {
            try (Statement statement = client.createStatement()) {
                statement.addBatch("INSERT INTO jdbc VALUES (1000)");
                statement.addBatch("INSERT INTO jdbc VALUES (1000)");
                statement.addBatch("INSERT INTO jdbc VALUES (1001)");
                statement.executeBatch();
                return "none";
            } catch (BatchUpdateException error) {
                return error.getSQLState() + " " + query(client, "SELECT count(*) FROM jdbc WHERE id >= 1000");
            }
        });
        show(mode + " generated keys", options, client -> {
            run(client, "DELETE FROM jdbc WHERE id = 5000");
            try (PreparedStatement insert = client.prepareStatement(
                    "INSERT INTO jdbc (id, body) VALUES (5000, 'x')", Statement.RETURN_GENERATED_KEYS)) {
                insert.executeUpdate();
                return rows(insert.getGeneratedKeys()).size();
            }
        });
        show(mode + " several results", options, client -> {
            try (Statement statement = client.createStatement()) {
                List<String> all = new ArrayList<>();
                boolean more = statement.execute("SELECT 1; SELECT 2, 3; SELECT 'x'");
                while (more) {
                    all.addAll(rows(statement.getResultSet()));
                    more = statement.getMoreResults();
                }
                return all;
            }
        });
    }

    static void transactions(String mode, String options) {
        show(mode + " cursor by fetch size", options, client -> {
            client.setAutoCommit(false);
            try (Statement statement = client.createStatement()) {
                statement.setFetchSize(7);
                int count = rows(statement.executeQuery("SELECT generate_series(1, 50)")).size();
                client.commit();
                return count;
            }
        });
        show(mode + " savepoints", options, client -> {
            client.setAutoCommit(false);
            run(client, "DELETE FROM jdbc WHERE id >= 6000");
            run(client, "INSERT INTO jdbc VALUES (6000)");
            Savepoint point = client.setSavepoint("point");
            String failed = state(client, "INSERT INTO jdbc VALUES (6000)");
            String broken = state(client, "SELECT 1");
            client.rollback(point);
            run(client, "INSERT INTO jdbc VALUES (6001)");
            client.commit();
            return failed + " " + broken + " " + query(client, "SELECT id FROM jdbc WHERE id >= 6000 ORDER BY id");
        });
        show(mode + " isolation and read only", options, client -> {
            client.setAutoCommit(false);
            client.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
            client.setReadOnly(true);
            String shown = query(client, "SHOW transaction_isolation") + state(client, "DELETE FROM jdbc");
            client.rollback();
            client.setReadOnly(false);
            return shown + query(client, "SHOW transaction_read_only") + client.getTransactionIsolation();
        });
        show(mode + " autosave", options + "&autosave=always", client -> {
            client.setAutoCommit(false);
            run(client, "DELETE FROM jdbc WHERE id >= 7000");
            run(client, "INSERT INTO jdbc VALUES (7000)");
            String failed = state(client, "INSERT INTO jdbc VALUES (7000)");
            run(client, "INSERT INTO jdbc VALUES (7001)");
            client.commit();
            return failed + query(client, "SELECT count(*) FROM jdbc WHERE id >= 7000");
        });
    }

    static void others() {
        show("copy in and out", "", client -> {
            run(client, "DELETE FROM jdbc");
            CopyManager copy = client.unwrap(PGConnection.class).getCopyAPI();
            byte[] in = "1\tone\n2\ttwo\n".getBytes(StandardCharsets.UTF_8);
            long count = copy.copyIn("COPY jdbc (id, body) FROM STDIN", new ByteArrayInputStream(in));
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            copy.copyOut("COPY (SELECT id, body FROM jdbc ORDER BY id) TO STDOUT", out);
            return count + " " + out.toString(StandardCharsets.UTF_8).replace('\n', ';');
        });
        show("notifications", "", client -> {
            run(client, "LISTEN \"a Channel\"");
            try (Connection other = connect("")) {
                run(other, "NOTIFY \"a Channel\", 'it''s'");
            }
            PGNotification[] got = client.unwrap(PGConnection.class).getNotifications(5000);
            return got.length + got[0].getName() + got[0].getParameter();
        });
        show("cancel by query timeout", "", client -> {
            try (Statement statement = client.createStatement()) {
                statement.setQueryTimeout(1);
                statement.execute("SELECT pg_sleep(30)");
                return "none";
            } catch (SQLException error) {
                return error.getSQLState() + query(client, "SELECT 1");
            }
        });
        show("metadata", "", client -> {
            DatabaseMetaData data = client.getMetaData();
            List<String> all = new ArrayList<>();
            try (ResultSet columns = data.getColumns(null, "public", "jdbc", "%")) {
                while (columns.next()) {
                    all.add(columns.getString("COLUMN_NAME") + " " + columns.getString("TYPE_NAME"));
                }
            }
            try (ResultSet keys = data.getPrimaryKeys(null, "public", "jdbc")) {
                while (keys.next()) {
                    all.add("key " + keys.getString("COLUMN_NAME"));
                }
            }
            return all + data.getDatabaseProductVersion();
        });
        show("types", "", client -> {
            String sql = "SELECT 1::int2, 2::int8, 1.5::numeric, 2.5::float8, true, '2024-02-29'::date, "
                + "ARRAY[1,2], '{\"a\": 1}'::jsonb, NULL::text";
            try (PreparedStatement statement = client.prepareStatement(sql)) {
                List<String> all = List.of();
                for (int i = 0; i < 8; i++) {
                    all = rows(statement.executeQuery());
                }
                return all;
            }
        });
        show("search path and application name", "&currentSchema=pg_catalog&ApplicationName=cases", client ->
            query(client, "SHOW search_path") + client.getSchema() + query(client, "SHOW application_name"));
        show("a changed table under a cached plan", "", client -> {
            List<String> all = new ArrayList<>();
            try (PreparedStatement statement = client.prepareStatement("SELECT * FROM jdbc WHERE id = ?")) {
                for (int i = 0; i < 10; i++) {
                    if (i == 7) {
                        run(client, "ALTER TABLE jdbc ADD COLUMN more int DEFAULT 7");
                    }
                    statement.setInt(1, 1);
                    all.add(rows(statement.executeQuery()).toString());
                }
            }
            run(client, "ALTER TABLE jdbc DROP COLUMN more");
            return all;
        });
    }
}
