/* Tables, columns, types, sequences and what hangs on them: do both sides agree, and where they don't, does
 * the stream live in both directions. */
#include "replication/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* SQL: a text of the catalogs that only servers of one major version print alike. */
#define IF_COMPARABLE(text)                                                                                  \
    "case when current_setting('switchback.same_major')::boolean then " text " else '' end"

#define COMPARABLE_CHECK      IF_COMPARABLE("pg_get_constraintdef(k.oid)")
#define COMPARABLE_CONSTRAINT IF_COMPARABLE("' ' || pg_get_constraintdef(k.oid)")
#define COMPARABLE_VIEW       IF_COMPARABLE("pg_get_viewdef(c.oid)")
#define COMPARABLE_TRIGGER    IF_COMPARABLE("pg_get_triggerdef(t.oid)")
#define COMPARABLE_POLICY                                                                                    \
    IF_COMPARABLE("concat(pg_get_expr(p.polqual, m.oid), '|', pg_get_expr(p.polwithcheck, m.oid))")

/* Types whose values go both ways as text until one is too large. */
static const char *const families[][6] = {
    {"smallint", "integer", "bigint", "numeric"},
    {"real", "double precision", "numeric"},
    {"text", "character varying", "character", "citext"},
    {"timestamp without time zone", "timestamp with time zone"},
    {"json", "jsonb"},
};

static bool in_family(const char *const *family, size_t count, const char *type)
{
    for (size_t i = 0; i < count && family[i] != NULL; i++) {
        size_t length = strlen(family[i]);
        /* a length or precision may follow */
        if (strncmp(type, family[i], length) == 0 && (type[length] == '\0' || type[length] == '(')) {
            return true;
        }
    }
    return false;
}

static enum check_state judge_type(const char *active, const char *standby)
{
    for (size_t i = 0; i < ARRAY_LENGTH(families); i++) {
        if (in_family(families[i], ARRAY_LENGTH(families[i]), active) &&
            in_family(families[i], ARRAY_LENGTH(families[i]), standby)) {
            return CHECK_WARN;
        }
    }
    return CHECK_FAIL;
}

/* "MIN to MAX by INCREMENT": narrower on the standby fails at some nextval after the cutover. */
static enum check_state judge_sequence(const char *active, const char *standby)
{
    int64_t here[2];
    int64_t there[2];
    if (sscanf(active, "%" SCNd64 " to %" SCNd64, &here[0], &here[1]) != 2 ||    /* NOLINT(cert-err34-c) */
        sscanf(standby, "%" SCNd64 " to %" SCNd64, &there[0], &there[1]) != 2) { /* NOLINT(cert-err34-c) */
        return CHECK_FAIL;
    }
    return there[0] > here[0] || there[1] < here[1] ? CHECK_FAIL : CHECK_WARN;
}

/* SQL: columns of managed tables as (m, a, d). */
#define COLUMNS                                                                                              \
    " from managed m join pg_attribute a on a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped"      \
    " left join pg_attrdef d on d.adrelid = m.oid and d.adnum = a.attnum"

static const struct check checks[] = {
    {.id = "tables",
     .passes = "both sides have the same managed tables",
     .finds = "the managed tables of both sides differ",
     .remedy = "create or drop them on one side, or name them in local_tables; then switchback prepare",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_FAIL,
     .extra = CHECK_FAIL,
     .differs = CHECK_FAIL,
     .sql = WITH_MANAGED
     "select m.name, case when m.relispartition then 'partition of ' || (select "
     "i.inhparent::regclass::text"
     " from pg_inherits i where i.inhrelid = m.oid limit 1) || ' ' || pg_get_expr(m.relpartbound, m.oid)"
     " else 'table' end from managed m"},
    {.id = "columns",
     .passes = "the columns of both sides fit",
     .finds = "the columns of both sides differ",
     .remedy =
         "make both sides alike; a column that only the standby has must be nullable or have a default, "
         "and switchback prepare must run again to leave it out of the way back",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_FAIL,
     .extra = CHECK_WARN,
     .judge = judge_type,
     .sql = WITH_MANAGED "select format('%s.%I', m.name, a.attname), format_type(a.atttypid, "
                         "a.atttypmod), case when a.attnotnull"
                         " and d.oid is null and a.attidentity = '' and "
                         "current_setting('switchback.side') = 'standby' then 'fail'"
                         " end" COLUMNS ""},
    {.id = "columns",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_PASS,
     .extra = CHECK_PASS,
     .differs = CHECK_FAIL,
     .sql = WITH_MANAGED "select format('%s.%I', m.name, a.attname), case a.attgenerated when '' then 'not"
                         " generated' else 'generated' end" COLUMNS ""},
    {.id = "columns",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_PASS,
     .extra = CHECK_PASS,
     .differs = CHECK_WARN,
     .sql = WITH_MANAGED
     "select format('%s.%I', m.name, a.attname), concat_ws(', ', case when a.attnotnull then 'not null' "
     "else"
     " 'nullable' end, case a.attidentity when '' then null else 'identity' end, case when "
     "a.attcollation <>"
     " t.typcollation then format('collation %s', a.attcollation::regcollation) end)" COLUMNS
     " join pg_type t on t.oid = a.atttypid"},
    {.id = "identity_columns",
     .passes = "both sides identify rows by the same columns",
     .finds = "rows are identified by other columns on the standby: updates may miss their row",
     .remedy = "give both sides the same primary key or replica identity",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_PASS,
     .extra = CHECK_PASS,
     .differs = CHECK_FAIL,
     .sql = WITH_MANAGED
     "select m.name, case when m.relreplident = 'f' then 'whole row' else (select string_agg(format('%I',"
     " a.attname), ', ' order by a.attname) from pg_index i join pg_attribute a on a.attrelid = m.oid and"
     " a.attnum = any (i.indkey[0:i.indnkeyatts - 1]) where i.indrelid = m.oid and (m.relreplident = 'i' "
     "and"
     " i.indisreplident or m.relreplident = 'd' and i.indisprimary)) end from managed m"
     ""},
    {.id = "enums",
     .passes = "enum types have the same labels",
     .finds = "enum labels differ: the first row with a label that the other side lacks stops the stream",
     .remedy = "ALTER TYPE ... ADD VALUE on the other side",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_FAIL,
     .extra = CHECK_WARN,
     .differs = CHECK_PASS,
     .sql = "select format('%I.%I %L', n.nspname, t.typname, e.enumlabel), '' from pg_type t join "
            "pg_namespace"
            " n on n.oid = t.typnamespace join pg_enum e on e.enumtypid = t.oid where " USER_NAMESPACE ""},
    {.id = "types",
     .passes = "user-defined types are the same",
     .finds = "user-defined types differ",
     .remedy = "make both sides alike",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_FAIL,
     .extra = CHECK_PASS,
     .differs = CHECK_FAIL,
     .sql =
         "select format('%I.%I', n.nspname, t.typname), case t.typtype when 'e' then 'enum' when 'r' then"
         " 'range' when 'm' then 'multirange' when 'd' then 'domain over ' || format_type(t.typbasetype,"
         " t.typtypmod) || case when t.typnotnull then ' not null' else '' end || coalesce((select"
         " string_agg(' ' || k.conname || ' ' || " COMPARABLE_CHECK ", '' order by k.conname) from"
         " pg_constraint k where k.contypid = t.oid and k.contype = 'c'), '') when 'c' then 'composite (' ||"
         " (select string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' order by"
         " a.attnum) from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not"
         " a.attisdropped) || ')' else 'base' end from pg_type t join pg_namespace n on n.oid ="
         " t.typnamespace left join pg_class c on c.oid = t.typrelid where " USER_NAMESPACE
         " and t.typcategory <> 'A' and (c.oid is null or c.relkind = 'c') and t.typtype <> 'p'"},
    {.id = "type_oids",
     .passes = "user-defined types have the same oids on both sides",
     .finds = "user-defined types have other oids on the standby: they are translated for sessions that move",
     .remedy =
         "nothing for sessions that move; programs that share what they know of types among connections,"
         " or use COPY in binary with arrays or composites of such types, must learn them anew",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_PASS,
     .extra = CHECK_PASS,
     .differs = CHECK_WARN,
     .sql = "select format('%I.%I', n.nspname, t.typname), t.oid::text from pg_type t join pg_namespace n on"
            " n.oid = t.typnamespace left join pg_class c on c.oid = t.typrelid where " USER_NAMESPACE
            " and t.typcategory <> 'A' and (c.oid is null or c.relkind = 'c') and t.typtype <> 'p'"
            ""},
    {.id = "sequences",
     .passes = "both sides have the same sequences",
     .finds = "the sequences of both sides differ",
     .remedy = "CREATE SEQUENCE or ALTER SEQUENCE on the standby: same bounds, increment and type",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_FAIL,
     .extra = CHECK_WARN,
     .judge = judge_sequence,
     .sql = "select format('%I.%I', n.nspname, c.relname), format('%s to %s by %s%s', s.seqmin, s.seqmax,"
            " s.seqincrement, case when s.seqcycle then ' cycle' else '' end) from pg_sequence s join "
            "pg_class"
            " c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace where " USER_NAMESPACE
            " and c.relpersistence = 'p' and " NOT_OF_EXTENSION("pg_class", "c.oid") " and " NOT_LOCAL ""},
    {.id = "unique_indexes",
     .passes = "both sides demand the same of unique values",
     .finds = "unique indexes differ: a value that one side takes can stop the stream to the other",
     .remedy = "create the same unique indexes on both sides",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_WARN,
     .extra = CHECK_WARN,
     .differs = CHECK_WARN,
     .sql = WITH_MANAGED
     "select distinct format('%s (%s)%s', m.name, (select string_agg(pg_get_indexdef(i.indexrelid, k, "
     "true),"
     " ', ' order by k) from generate_series(1, i.indnkeyatts) k), ' where ' || pg_get_expr(i.indpred,"
     " i.indrelid)), '' from managed m join pg_index i on i.indrelid = m.oid and i.indisunique"
     ""},
    {.id = "indexes",
     .passes = "both sides have the same indexes",
     .finds = "indexes differ: statements may be slow after the cutover",
     .remedy = "create what is missing, REINDEX what is invalid",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_WARN,
     .extra = CHECK_PASS,
     .differs = CHECK_WARN,
     .sql = WITH_MANAGED
     "select format('%s.%I', m.schema, x.relname), 'on ' || m.name || ' using ' || am.amname || ' (' ||"
     " (select string_agg(pg_get_indexdef(i.indexrelid, k, true), ', ' order by k) from "
     "generate_series(1,"
     " i.indnatts) k) || ')' from managed m join pg_index i on i.indrelid = m.oid join pg_class x on "
     "x.oid ="
     " i.indexrelid join pg_am am on am.oid = x.relam"},
    {.id = "indexes",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .sql = WITH_MANAGED "select 'warn', format('%s', i.indexrelid::regclass), 'invalid' from managed m join"
                         " pg_index i on i.indrelid = m.oid where not i.indisvalid order by 2"},
    {.id = "constraints",
     .passes = "both sides have the same constraints",
     .finds = "constraints differ: rows that one side takes may break the other's",
     .remedy = "make both sides alike, or know that the standby may end up with such rows",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_WARN,
     .extra = CHECK_WARN,
     .differs = CHECK_WARN,
     .sql = WITH_MANAGED
     "select format('%s %I', m.name, k.conname), case k.contype when 'c' then 'check' when 'f' then 'foreign"
     " key' else 'exclusion' end || case when k.convalidated then '' else ' not valid' end "
     "|| " COMPARABLE_CONSTRAINT
     " from managed m join pg_constraint k on k.conrelid = m.oid where k.contype in ('c', 'f', 'x') and"
     " (k.contype <> 'f' or k.conparentid = 0)"},
    {.id = "programs",
     .passes = "functions, views, triggers and policies are the same on both sides",
     .finds = "functions, views, triggers, policies or row security differ",
     .remedy = "make both sides alike",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_WARN,
     .extra = CHECK_PASS,
     .differs = CHECK_WARN,
     .sql = "select 'function ' || p.oid::regprocedure::text, md5(concat_ws('|', p.prosrc, l.lanname,"
            " p.provolatile, p.prosecdef, p.proconfig::text)) from pg_proc p join pg_namespace n on n.oid ="
            " p.pronamespace join pg_language l on l.oid = p.prolang where " USER_NAMESPACE
            " and " NOT_OF_EXTENSION("pg_proc", "p.oid")},
    {.id = "programs",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_WARN,
     .extra = CHECK_PASS,
     .differs = CHECK_WARN,
     .sql =
         "select 'view ' || format('%I.%I', n.nspname, c.relname), md5(" COMPARABLE_VIEW ") from pg_class c"
         " join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('v', 'm') and " USER_NAMESPACE
         " and " NOT_OF_EXTENSION("pg_class", "c.oid")},
    {.id = "programs",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_WARN,
     .extra = CHECK_WARN,
     .differs = CHECK_WARN,
     .sql = WITH_MANAGED
     "select format('trigger %s %I', m.name, t.tgname), concat_ws(' ', t.tgenabled, t.tgfoid::regproc,"
     " md5(" COMPARABLE_TRIGGER ")) from managed m join pg_trigger t on t.tgrelid = m.oid where not"
     " t.tgisinternal and t.tgname <> '" NAMES_FENCE_TRIGGER "'"},
    {.id = "programs",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_WARN,
     .extra = CHECK_WARN,
     .differs = CHECK_WARN,
     .sql = WITH_MANAGED
     "select format('policy %s %I', m.name, p.polname), concat_ws(' ', p.polcmd, p.polpermissive,"
     " md5(" COMPARABLE_POLICY ")) from managed m join pg_policy p on p.polrelid = m.oid"},
    {.id = "programs",
     .scope = CHECK_DATABASE,
     .compares = true,
     .prepared = true,
     .on = CHECK_ON_BOTH,
     .missing = CHECK_WARN,
     .extra = CHECK_WARN,
     .differs = CHECK_WARN,
     .sql = WITH_MANAGED
     "select 'row security ' || m.name, concat(m.relrowsecurity, ', forced ', m.relforcerowsecurity) from"
     " managed m where m.relrowsecurity or m.relforcerowsecurity"},
};

const struct check_group check_definition = {checks, ARRAY_LENGTH(checks)};
