/* pgjdbc in the matrix: README.md beside this says what each worker does. */
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.Properties;
import java.util.UUID;

import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

public final class Pgjdbc {
    static final String NAME = System.getenv("MATRIX_NAME");
    static final String INSERT = "insert into matrix_entry (driver, worker, n) values (?, ?, ?)";
    static final String COUNT = "select count(*) from matrix_entry where driver = ? and worker = ? and n = ?";
    static final int COPY_ROWS = 40, MANY = 1000000, WARM_UP = 20, PACE_MS = 20, CANCEL_AFTER_MS = 100, NOTIFY_PATIENCE_MS = 2000;

    interface Body {
        void run(Worker worker) throws Exception;
    }

    static final class Worker extends Thread {
        final Body body;
        final List<Long> acknowledged = new ArrayList<>();
        long rounds;
        int switches, lost;
        boolean last;
        String server, statements, error;

        Worker(String name, Body body) {
            super(name);
            this.body = body;
        }

        @Override
        public void run() {
            try {
                body.run(this);
            } catch (Exception | AssertionError thrown) {
                error = getName() + ": " + thrown;
                thrown.printStackTrace();
            }
        }

        /** The last round begins when the run is over. */
        boolean next() throws InterruptedException {
            if (last) {
                return false;
            }
            if (rounds > 0) {
                Thread.sleep(PACE_MS);
            }
            last = Files.exists(Paths.get(System.getenv("MATRIX_STOP")));
            rounds++;
            return true;
        }

        void checkState(Connection connection) throws SQLException {
            try (Statement statement = connection.createStatement();
                 ResultSet row = statement.executeQuery(System.getenv("MATRIX_STATE"))) {
                row.next();
                expect("the session's state", row.getString(1), System.getenv("MATRIX_WANTED"));
                expect("an enum", row.getString(4), "calm");
                if (server != null && !server.equals(row.getString(2))) {
                    switches++;
                }
                server = row.getString(2);
                if (rounds > WARM_UP) {
                    if (statements != null) {
                        expect("the list of prepared statements", row.getString(3), statements);
                    }
                    statements = row.getString(3);
                }
            }
        }

        String summary() {
            return String.format("\"%s\": {\"rounds\": %d, \"switches\": %d, \"acknowledged\": %d, \"lost\": %d}", getName(), rounds,
                                 switches, acknowledged.size(), lost);
        }
    }

    static void expect(String what, Object got, Object wanted) {
        if (!Objects.equals(got, wanted)) {
            throw new AssertionError(what + " is " + got + " instead of " + wanted);
        }
    }

    static Connection connect(String... extra) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("MATRIX_USER"));
        properties.setProperty("password", System.getenv("MATRIX_PASSWORD"));
        properties.setProperty("prepareThreshold", "2");
        String ca = System.getenv("MATRIX_CA");
        properties.setProperty("sslmode", ca == null ? "disable" : "verify-full");
        if (ca != null) {
            properties.setProperty("sslrootcert", ca);
        }
        for (int i = 0; i < extra.length; i += 2) {
            properties.setProperty(extra[i], extra[i + 1]);
        }
        Connection connection = DriverManager.getConnection(
            "jdbc:postgresql://" + System.getenv("MATRIX_HOST") + ":" + System.getenv("MATRIX_PORT") + "/" + System.getenv("MATRIX_DATABASE"),
            properties);
        try (Statement statement = connection.createStatement()) {
            for (String sql : System.getenv("MATRIX_SET_UP").split(";")) {
                statement.execute(sql);
            }
        }
        return connection;
    }

    static void bind(PreparedStatement statement, Worker worker, long n) throws SQLException {
        statement.setString(1, NAME);
        statement.setString(2, worker.getName());
        statement.setLong(3, n);
    }

    static long count(PreparedStatement statement, Worker worker, long n) throws SQLException {
        bind(statement, worker, n);
        try (ResultSet row = statement.executeQuery()) {
            row.next();
            return row.getLong(1);
        }
    }

    static void insert(PreparedStatement statement, Worker worker, long n) throws SQLException {
        bind(statement, worker, n);
        expect("the number of rows", statement.executeUpdate(), 1);
    }

    static void checkTypes(PreparedStatement echo) throws SQLException {
        OffsetDateTime time = OffsetDateTime.parse("2024-02-29T12:00:00Z");
        BigDecimal number = new BigDecimal("-12345678901234567890.000100");
        byte[] bytes = {0, 1, -1};
        UUID uuid = new UUID(0, 42);
        echo.setLong(1, 7);
        echo.setString(2, "zürich");
        echo.setBytes(3, bytes);
        echo.setObject(4, time);
        echo.setBigDecimal(5, number);
        echo.setArray(6, echo.getConnection().createArrayOf("int8", new Long[] {1L, 2L, 3L}));
        echo.setObject(7, uuid);
        try (ResultSet row = echo.executeQuery()) {
            row.next();
            expect("a bigint", row.getLong(1), 7L);
            expect("a text", row.getString(2), "zürich");
            expect("a bytea", Arrays.equals(row.getBytes(3), bytes), true);
            expect("a timestamp", row.getObject(4, OffsetDateTime.class).toInstant(), time.toInstant());
            expect("a numeric", row.getBigDecimal(5), number);
            expect("an array", Arrays.toString((Object[]) row.getArray(6).getArray()), "[1, 2, 3]");
            expect("a uuid", row.getObject(7), uuid);
        }
    }

    static void transactions(Worker worker) throws Exception {
        Connection connection = connect();
        connection.setAutoCommit(false);
        PreparedStatement put = connection.prepareStatement(INSERT), see = connection.prepareStatement(COUNT);
        PreparedStatement echo = connection.prepareStatement(
            "select ?::int8, ?::text, ?::bytea, ?::timestamptz, ?::numeric, ?::int8[], ?::uuid");
        PreparedStatement walk = connection.prepareStatement("select g from generate_series(1, 30) g");
        walk.setFetchSize(7); /* a portal that is fetched from */
        while (worker.next()) {
            long n = worker.rounds;
            insert(put, worker, n);
            expect("the count in the transaction", count(see, worker, n), 1L);
            connection.commit();
            worker.acknowledged.add(n);
            insert(put, worker, -n);
            connection.rollback();
            expect("what was rolled back", count(see, worker, -n), 0L);
            expect("the last commit", count(see, worker, n), 1L);
            checkTypes(echo);
            int sum = 0;
            try (ResultSet rows = walk.executeQuery()) {
                while (rows.next()) {
                    sum += rows.getInt(1);
                }
            }
            expect("what a portal gives", sum, 465);
            for (int i = 0; i < 5; i++) {
                bind(put, worker, MANY * n + i);
                put.addBatch();
            }
            put.executeBatch();
            worker.checkState(connection);
            connection.commit();
            for (int i = 0; i < 5; i++) {
                worker.acknowledged.add(MANY * n + i);
            }
        }
        connection.close();
    }

    /* Each statement a transaction of its own, and plain Query messages. */
    static void simple(Worker worker) throws Exception {
        Connection connection = connect("preferQueryMode", "simple");
        PreparedStatement put = connection.prepareStatement(INSERT), see = connection.prepareStatement(COUNT);
        while (worker.next()) {
            insert(put, worker, worker.rounds);
            worker.acknowledged.add(worker.rounds);
            expect("the last commit", count(see, worker, worker.rounds), 1L);
            worker.checkState(connection);
        }
        connection.close();
    }

    static void copy(Worker worker) throws Exception {
        Connection connection = connect();
        while (worker.next()) {
            StringBuilder rows = new StringBuilder(), numbers = new StringBuilder();
            long first = worker.rounds * COPY_ROWS;
            for (long n = first; n < first + COPY_ROWS; n++) {
                rows.append(NAME).append('\t').append(worker.getName()).append('\t').append(n).append('\n');
                numbers.append(n).append('\n');
            }
            connection.unwrap(PGConnection.class).getCopyAPI().copyIn(
                "copy matrix_entry (driver, worker, n) from stdin", new StringReader(rows.toString()));
            for (long n = first; n < first + COPY_ROWS; n++) {
                worker.acknowledged.add(n);
            }
            StringWriter out = new StringWriter();
            connection.unwrap(PGConnection.class).getCopyAPI().copyOut(
                "copy (select n from matrix_entry where driver = '" + NAME + "' and worker = '" + worker.getName() + "' and n >= " + first
                    + " order by n) to stdout", out);
            expect("what COPY gives back", out.toString(), numbers.toString());
            worker.checkState(connection);
        }
        connection.close();
    }

    static void notify(Worker worker) throws Exception {
        Connection listener = connect(), connection = connect();
        try (Statement statement = listener.createStatement()) {
            statement.execute("listen \"" + NAME + "\"");
        }
        PreparedStatement send = connection.prepareStatement("select pg_notify(?, ?)");
        while (worker.next()) {
            send.setString(1, NAME);
            send.setString(2, "" + worker.rounds);
            send.executeQuery().close();
            PGNotification[] got = listener.unwrap(PGConnection.class).getNotifications(NOTIFY_PATIENCE_MS);
            if (got == null || got.length == 0) {
                worker.lost++;
            } else {
                expect("the number of notifications", got.length, 1);
                expect("the notification", got[0].getParameter(), "" + worker.rounds);
            }
            worker.checkState(listener);
        }
        connection.close();
        listener.close();
    }

    static void cancel(Worker worker) throws Exception {
        Connection connection = connect();
        while (worker.next()) {
            try (Statement statement = connection.createStatement()) {
                Thread canceller = new Thread(() -> {
                    try {
                        Thread.sleep(CANCEL_AFTER_MS);
                        statement.cancel();
                    } catch (InterruptedException | SQLException thrown) {
                        thrown.printStackTrace();
                    }
                });
                canceller.start();
                try {
                    statement.execute("select pg_sleep(5)");
                    throw new AssertionError("the cancel did not arrive");
                } catch (SQLException thrown) {
                    expect("the error of a cancelled statement", thrown.getSQLState(), "57014");
                }
                canceller.join();
            }
            worker.checkState(connection);
        }
        connection.close();
    }

    static void logins(Worker worker) throws Exception {
        while (worker.next()) {
            try (Connection connection = connect(); PreparedStatement put = connection.prepareStatement(INSERT)) {
                insert(put, worker, worker.rounds);
                worker.acknowledged.add(worker.rounds);
                worker.checkState(connection);
            }
        }
    }

    static String quoted(String text) {
        return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"").replaceAll("\\p{Cntrl}", " ") + "\"";
    }

    public static void main(String[] arguments) throws InterruptedException, IOException {
        Worker[] workers = {
            new Worker("transactions", Pgjdbc::transactions), new Worker("simple", Pgjdbc::simple), new Worker("copy", Pgjdbc::copy),
            new Worker("notify", Pgjdbc::notify), new Worker("cancel", Pgjdbc::cancel), new Worker("logins", Pgjdbc::logins)};
        List<String> errors = new ArrayList<>(), summaries = new ArrayList<>();
        for (Worker worker : workers) {
            worker.start();
        }
        try (PrintWriter ledger = new PrintWriter(System.getenv("MATRIX_LEDGER"))) {
            for (Worker worker : workers) {
                worker.join();
                worker.acknowledged.forEach(n -> ledger.println(worker.getName() + " " + n));
                summaries.add(worker.summary());
                if (worker.error != null) {
                    errors.add(quoted(worker.error));
                }
            }
        }
        System.out.println("{\"name\": " + quoted(NAME) + ", \"errors\": [" + String.join(", ", errors) + "], \"workers\": {"
                           + String.join(", ", summaries) + "}}");
        System.exit(errors.isEmpty() ? 0 : 1);
    }
}
