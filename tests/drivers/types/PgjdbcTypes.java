import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.Statement;
import java.sql.Types;
import java.util.Arrays;
import java.util.Map;
import org.postgresql.util.PGobject;

/** pgjdbc, which keeps names and oids of types: a round for each line on standard input. */
public class PgjdbcTypes {
    static Connection connection;
    static PreparedStatement kept;

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void same(String sql, Object value, String type, String shown) throws Exception {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            statement.setObject(1, value);
            try (ResultSet rows = statement.executeQuery()) {
                check(rows.getMetaData().getColumnTypeName(1).equals(type),
                      sql + " is a " + rows.getMetaData().getColumnTypeName(1));
                check(rows.next() && rows.getString(1).equals(shown), sql + " gave " + rows.getString(1));
            }
        }
    }

    static PGobject object(String type, String value) throws Exception {
        PGobject made = new PGobject();
        made.setType(type);
        made.setValue(value);
        return made;
    }

    static void array(String type, String... values) throws Exception {
        Array array = connection.createArrayOf(type, values);
        try (PreparedStatement statement = connection.prepareStatement("select ?::" + type + "[], ?::" + type)) {
            statement.setArray(1, array);
            statement.setObject(2, object(type, values[0]));
            try (ResultSet rows = statement.executeQuery()) {
                check(rows.next(), "a row");
                Object[] got = (Object[]) rows.getArray(1).getArray();
                check(Arrays.equals(got, values), Arrays.toString(got));
                check(rows.getArray(1).getBaseTypeName().equals(type), rows.getArray(1).getBaseTypeName());
                check(rows.getString(2).equals(values[0]), type);
                check(rows.getMetaData().getColumnTypeName(2).equals(type), rows.getMetaData().getColumnTypeName(2));
            }
        }
    }

    /** A type that is first seen now: its name is looked up by the oid, its oid by the name. */
    static void late(String name) throws Exception {
        try (Statement statement = connection.createStatement();
             ResultSet rows = statement.executeQuery("select (enum_range(null::" + name + "))[1], enum_range(null::" + name + ")")) {
            check(rows.next(), "a row");
            check(rows.getMetaData().getColumnTypeName(1).equals(name), name + " is " + rows.getMetaData().getColumnTypeName(1));
            check(rows.getMetaData().getColumnTypeName(2).equals("_" + name), name + "[] is " + rows.getMetaData().getColumnTypeName(2));
            check(rows.getArray(2).getBaseTypeName().equals(name), rows.getArray(2).getBaseTypeName());
            array(name, rows.getString(1));
        }
    }

    static void use() throws Exception {
        for (int i = 0; i < 7; i++) { // from the fifth on it is a named statement, and binary
            same("select ?::zmood", object("zmood", "sad"), "zmood", "sad");
            same("select ?", object("zmood", "glad"), "zmood", "glad");
            same("select ?", object("acolor", "red"), "acolor", "red");
            same("select ?", object("pair", "(sad,blue,x)"), "pair", "(sad,blue,x)");
            same("select ?", object("span", "[sad,glad]"), "span", "[sad,glad]");
            same("select ?", object("citext", "Text"), "citext", "Text");
            array("zmood", "sad", "glad");
            array("acolor", "blue");
            kept.setObject(1, object("zmood", "sad"));
            kept.setObject(2, Map.of("a", "1"), Types.OTHER);
            try (ResultSet rows = kept.executeQuery()) {
                check(rows.next() && rows.getString(1).equals("sad"), "the kept statement");
                check(rows.getObject(2).equals(Map.of("a", "1")), "hstore " + rows.getObject(2));
                check(Arrays.equals((Object[]) rows.getArray(3).getArray(), new String[] {"sad"}), "array of the kept statement");
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        connection = DriverManager.getConnection(arguments[0]);
        kept = connection.prepareStatement("select ?::zmood, ?::hstore, array['sad'::zmood]");
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        try {
            for (String line = input.readLine(); line != null; line = input.readLine()) {
                for (String word : line.split(" ")) {
                    if (!word.equals("use")) {
                        late(word);
                    }
                }
                use();
                System.out.println("ok");
            }
        } catch (Throwable failure) {
            StringBuilder text = new StringBuilder(failure.toString());
            for (StackTraceElement at : failure.getStackTrace()) {
                text.append(" | ").append(at);
            }
            System.out.println(text.toString().replace("\n", " | "));
        }
    }
}
