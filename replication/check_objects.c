/* What a stream can't carry, or what would stop it: identity, unlogged and foreign tables, large objects. */
#include "replication/check.h"

/* A default operator class for equality, as the apply worker looks it up; domains, arrays and
 * binary-coercible types lead to another type. */
#define HAS_EQUALITY                                                                                         \
    "(b.typtype in ('e', 'r', 'm', 'c') or exists (select from pg_opclass o join pg_am am on am.oid ="       \
    " o.opcmethod where o.opcdefault and am.amname in ('btree', 'hash') and (o.opcintype = b.oid"            \
    " or exists (select from pg_cast k where k.castsource = b.oid and k.casttarget = o.opcintype"            \
    " and k.castmethod = 'b' and k.castcontext = 'i'))))"

static const struct check checks[] = {
    {.id = "replica_identity",
     .passes = "every managed table can be identified row by row",
     .finds = "tables without a usable replica identity: UPDATE and DELETE fail once they are published",
     .remedy = "add a primary key, or ALTER TABLE ... REPLICA IDENTITY FULL (or USING INDEX), or name the "
               "table in local_tables",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .sql = WITH_MANAGED
     "select 'fail', m.name, case m.relreplident when 'd' then 'no primary key that is checked at once'"
     " when 'n' then 'REPLICA IDENTITY NOTHING' else 'its identity index is gone' end from managed m"
     " where m.relreplident = 'n'"
     " or m.relreplident = 'd' and not exists (select from pg_index i where i.indrelid = m.oid"
     "  and i.indisprimary and i.indimmediate and i.indisvalid)"
     " or m.relreplident = 'i' and not exists (select from pg_index i where i.indrelid = m.oid"
     "  and i.indisreplident and i.indimmediate and i.indisvalid) order by 2"},
    {.id = "replica_identity",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .sql = WITH_MANAGED
     "select 'fail', m.name, format('generated column %I in its replica identity', a.attname)"
     " from managed m join pg_index i on i.indrelid = m.oid and (i.indisreplident or i.indisprimary and"
     " m.relreplident = 'd') join pg_attribute a on a.attrelid = m.oid and a.attnum = any (i.indkey)"
     " where a.attgenerated <> '' order by 2"},
    {.id = "replica_identity",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .from_version = 180000,
     .sql = WITH_MANAGED
     "select 'fail', m.name, format('REPLICA IDENTITY FULL with the generated column %I', a.attname)"
     " from managed m join pg_attribute a on a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped"
     " where m.relreplident = 'f' and a.attgenerated <> '' order by 2"},
    {.id = "identity_full",
     .passes = "no table is identified by its whole row",
     .finds = "tables identified by their whole row: each UPDATE and DELETE reads the table on the standby",
     .remedy = "add a primary key; a type without an equality operator (json, xml, point ...) can't be used "
               "in a whole-row identity at all",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .sql = WITH_MANAGED
     ", loose as (select * from managed m where m.relreplident = 'f' and not exists (select from pg_index i"
     " where i.indrelid = m.oid and i.indisprimary and i.indimmediate and i.indisvalid)),"
     " columns as (select l.oid, l.name, a.attname, coalesce((with recursive base (typ) as (select a.atttypid"
     "  union all select case when t.typtype = 'd' then t.typbasetype else t.typelem end from base"
     "  join pg_type t on t.oid = base.typ where t.typtype = 'd' or t.typcategory = 'A' and t.typelem <> 0)"
     "  select b.oid from base join pg_type b on b.oid = base.typ where b.typtype <> 'd'"
     "  and not (b.typcategory = 'A' and b.typelem <> 0) limit 1), a.atttypid) as base"
     " from loose l join pg_attribute a on a.attrelid = l.oid and a.attnum > 0 and not a.attisdropped"
     " and a.attgenerated = '')"
     " select 'fail', c.name, format('column %I: type %s has no equality', c.attname, format_type(b.oid,"
     " null)) from columns c join pg_type b on b.oid = c.base where not " HAS_EQUALITY
     " union all select 'warn', name, 'REPLICA IDENTITY FULL without a primary key' from loose order by 2"},
    {.id = "unlogged_tables",
     .passes = "no unlogged tables",
     .finds = "unlogged tables aren't replicated: after a cutover they are empty, or hold old rows",
     .remedy = "ALTER TABLE ... SET LOGGED, or name them in local_tables to say that this is meant",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_ACTIVE,
     .sql = "select 'fail', format('%I.%I', n.nspname, c.relname), '' from pg_class c join pg_namespace n"
            " on n.oid = c.relnamespace where c.relkind = 'r' and c.relpersistence = 'u' and " USER_NAMESPACE
            " and " NOT_OF_EXTENSION("pg_class", "c.oid") " and " NOT_LOCAL " order by 2"},
    {.id = "foreign_tables",
     .passes = "no foreign tables",
     .finds = "foreign tables: the standby must reach their servers with its own user mappings",
     .remedy = "read from each of them on the standby once",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_ACTIVE,
     .sql = "select 'warn', format('%I.%I', n.nspname, c.relname), format('server %I', s.srvname)"
            " from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_foreign_table f"
            " on f.ftrelid = c.oid join pg_foreign_server s on s.oid = f.ftserver where " USER_NAMESPACE
            " and " NOT_LOCAL " order by 2"},
    {.id = "temporary_tables",
     .passes = "no session has temporary tables",
     .finds = "sessions with temporary tables can't move",
     .remedy = "switchback sessions --immovable names them; flip.immovable decides what happens to them",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_ACTIVE,
     .sql = "select 'warn', n.nspname, format('%s temporary tables', count(*)) from pg_class c join"
            " pg_namespace n on n.oid = c.relnamespace join pg_stat_get_backend_idset() b (id)"
            " on n.nspname = 'pg_temp_' || b.id where c.relpersistence = 't' and c.relkind = 'r'"
            " group by n.nspname order by 2"},
    {.id = "large_objects",
     .passes = "no large objects that the standby lacks",
     .finds = "large objects aren't replicated",
     .remedy =
         "copy them while nothing writes them (pg_dump --large-objects, or lo_export and lo_import), or "
         "move them into a bytea column",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .compares = true,
     .prepared = true,
     .missing = CHECK_FAIL,
     .extra = CHECK_PASS,
     .sql = "select 'large object ' || lpad(oid::text, 10, '0'), '' from pg_largeobject_metadata"
            ""},
    {.id = "large_objects",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_ACTIVE,
     .sql = "select 'warn', 'large objects', format('%s of them; changes to them don''t cross', count(*))"
            " from pg_largeobject_metadata having count(*) > 0"},
    {.id = "materialized_views",
     .passes = "no materialized views",
     .finds = "materialized views on the standby are as old as their last refresh there",
     .remedy = "REFRESH MATERIALIZED VIEW on the standby shortly before the cutover, as the manager",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_STANDBY,
     .sql = "select case when c.relispopulated then 'warn' else 'fail' end, format('%I.%I', n.nspname,"
            " c.relname), case when c.relispopulated then '' else 'never populated: reading it fails' end"
            " from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'm' and"
            " " USER_NAMESPACE " and current_setting('switchback.prepared')::boolean order by 2"},
    {.id = "always_triggers",
     .passes = "no trigger fires on replicated rows",
     .finds = "triggers or rules that fire on replicated rows too: their effects happen twice",
     .remedy = "ALTER TABLE ... ENABLE TRIGGER (without ALWAYS or REPLICA), unless this is meant",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .sql =
         WITH_MANAGED "select 'warn', m.name, format('trigger %I', t.tgname) from managed m join pg_trigger t"
                      " on t.tgrelid = m.oid where not t.tgisinternal and t.tgenabled in ('A', 'R')"
                      " and t.tgname <> '!switchback_fence'"
                      " union all select 'warn', m.name, format('rule %I', r.rulename) from managed m"
                      " join pg_rewrite r on r.ev_class = m.oid where r.ev_enabled in ('A', 'R')"
                      " order by 2, 3"},
    {.id = "truncate",
     .passes = "no foreign key joins a managed table to one that isn't",
     .finds = "foreign keys between managed tables and others: a replicated TRUNCATE ... CASCADE stops there",
     .remedy = "take both tables in (local_tables, SET LOGGED), or don't truncate them",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .sql = WITH_MANAGED
     "select 'warn', format('%s', k.conrelid::regclass), format('%I references %s', k.conname,"
     " k.confrelid::regclass) from pg_constraint k join pg_class c on c.oid = k.conrelid and c.relkind = 'r'"
     " join pg_class f on f.oid = k.confrelid and f.relkind = 'r' where k.contype = 'f'"
     " and (k.conrelid in (select oid from managed)) <> (k.confrelid in (select oid from managed)) order by "
     "2"},
    {.id = "row_security",
     .passes = "row security doesn't stop the apply worker",
     .finds = "row security would stop the apply worker, which writes as the manager",
     .remedy = "make the manager a superuser, or ALTER ROLE ... BYPASSRLS",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .sql = WITH_MANAGED "select 'fail', m.name, '' from managed m where m.relrowsecurity and not exists"
                         " (select from pg_roles r where r.rolname = current_user and (r.rolsuper or"
                         " r.rolbypassrls)) order by 2"},
};

const struct check_group check_objects = {checks, ARRAY_LENGTH(checks)};
