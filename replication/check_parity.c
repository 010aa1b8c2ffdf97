/* Settings, roles, grants, extensions, collations: would a client notice that it was moved. */
#include "replication/check.h"

#define MANAGED_DATABASE(column) column " = any (current_setting('switchback.databases')::text[])"
/* SQL: of a pg_roles or pg_authid r, whether it is an application's or a person's. */
#define OWN_ROLE "r.rolname !~ '^pg_' and r.rolname <> current_setting('switchback.manager')"
/* Privileges as (grantee, privilege, grantable), without the owner's own and those that old versions lack. */
#define PRIVILEGES(acl, owner)                                                                               \
    "(select string_agg(concat(coalesce(g.rolname, 'public'), ' ', x.privilege_type, case when"              \
    " x.is_grantable then '*' end), ', ' order by coalesce(g.rolname::text, 'public') collate \"C\","        \
    " x.privilege_type) from aclexplode(" acl ") x left join pg_roles g on g.oid = x.grantee where"          \
    " x.grantee <> " owner " and x.privilege_type <> 'MAINTAIN')"

#define RELATION_PRIVILEGES                                                                                  \
    PRIVILEGES("coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::\"char\","      \
               " c.relowner))",                                                                              \
               "c.relowner")
#define SCHEMA_PRIVILEGES   PRIVILEGES("coalesce(n.nspacl, acldefault('n', n.nspowner))", "n.nspowner")
#define FUNCTION_PRIVILEGES PRIVILEGES("coalesce(p.proacl, acldefault('f', p.proowner))", "p.proowner")
#define DATABASE_PRIVILEGES PRIVILEGES("coalesce(d.datacl, acldefault('d', d.datdba))", "d.datdba")

static const struct check checks[] = {
    {.id = "databases",
     .passes = "every managed database exists on both sides",
     .finds = "managed databases are missing",
     .remedy = "switchback prepare creates those that the standby lacks; create the others, or correct "
               "`databases`",
     .on = CHECK_ON_BOTH,
     .sql = "select case when current_setting('switchback.side') = 'active' or"
            " current_setting('switchback.prepared')::boolean then 'fail' else 'warn' end, d, 'missing' from"
            " unnest(current_setting('switchback.databases')::text[]) d where not exists (select from"
            " pg_database b where b.datname = d and b.datallowconn)"},
    {.id = "encoding",
     .passes = "encodings are equal",
     .finds = "encodings differ",
     .remedy = "drop the standby's database and let switchback prepare create it",
     .on = CHECK_ON_BOTH,
     .compares = true,
     .missing = CHECK_PASS,
     .extra = CHECK_PASS,
     .differs = CHECK_FAIL,
     .sql = "select datname::text, pg_encoding_to_char(encoding) from pg_database where"
            " " MANAGED_DATABASE("datname")},
    {.id = "collation",
     .passes = "locales and collation versions are equal",
     .finds = "locales, providers or collation versions differ: texts may sort otherwise on the standby",
     .remedy = "create the standby's database with the same locale; after an upgrade of the system's library "
               "REINDEX and ALTER DATABASE ... REFRESH COLLATION VERSION on the side that it names",
     .on = CHECK_ON_BOTH,
     .compares = true,
     .missing = CHECK_PASS,
     .extra = CHECK_PASS,
     .differs = CHECK_WARN,
     .sql = "select d.datname::text, concat_ws(' ', d.datcollate, d.datctype, coalesce(j.d ->> "
            "'datlocprovider', 'c'),"
            " coalesce(j.d ->> 'daticulocale', j.d ->> 'datlocale')) from pg_database d cross join lateral "
            "(select"
            " to_jsonb(d) as d) j where " MANAGED_DATABASE("d.datname")},
    {.id = "collation",
     .on = CHECK_ON_BOTH,
     .compares = true,
     .from_version = 150000,
     .missing = CHECK_PASS,
     .extra = CHECK_PASS,
     .differs = CHECK_WARN,
     .sql = "select datname::text, datcollversion from pg_database where " MANAGED_DATABASE("datname")},
    {.id = "collation",
     .on = CHECK_ON_BOTH,
     .from_version = 150000,
     .sql =
         "select 'warn', datname::text, format('built with collation version %s, the system has %s',"
         " datcollversion, pg_database_collation_actual_version(oid)) from pg_database where"
         " " MANAGED_DATABASE("datname") " and datcollversion <> pg_database_collation_actual_version(oid)"},
    {.id = "collation",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .sql = "select 'warn', format('%I.%I', n.nspname, c.collname), format('built with collation version %s,"
            " the system has %s', c.collversion, pg_collation_actual_version(c.oid)) from pg_collation c join"
            " pg_namespace n on n.oid = c.collnamespace where c.collversion <> "
            "pg_collation_actual_version(c.oid)"
            " and exists (select from pg_attribute a where a.attcollation = c.oid and a.attrelid >= 16384)"},
    {.id = "settings",
     .passes = "settings that change results are equal",
     .finds = "settings that change results differ",
     .remedy = "ALTER SYSTEM SET ... on one side, then reload it",
     .on = CHECK_ON_BOTH,
     .compares = true,
     .missing = CHECK_PASS,
     .extra = CHECK_PASS,
     .differs = CHECK_WARN,
     .sql =
         "select name, coalesce(reset_val, '') from pg_settings where name in ('TimeZone', 'DateStyle',"
         " 'IntervalStyle', 'standard_conforming_strings', 'default_transaction_isolation', 'lc_monetary',"
         " 'lc_numeric', 'lc_time', 'default_text_search_config', 'bytea_output', 'extra_float_digits',"
         " 'backslash_quote', 'array_nulls', 'transform_null_equals', 'xmlbinary', 'xmloption',"
         " 'escape_string_warning', 'quote_all_identifiers', 'timezone_abbreviations', 'integer_datetimes',"
         " 'max_identifier_length', 'max_index_keys', 'block_size', 'lo_compat_privileges',"
         " 'default_transaction_deferrable', 'password_encryption', 'statement_timeout', 'lock_timeout',"
         " 'idle_in_transaction_session_timeout', 'max_prepared_transactions')"},
    {.id = "preload",
     .passes = "both sides preload the same libraries",
     .finds = "the standby doesn't preload the same libraries",
     .remedy = "ALTER SYSTEM SET shared_preload_libraries, then restart that side",
     .on = CHECK_ON_BOTH,
     .compares = true,
     .missing = CHECK_WARN,
     .extra = CHECK_PASS,
     .differs = CHECK_PASS,
     .sql =
         "select distinct trim(l, ' \"'), '' from pg_settings s cross join lateral"
         " unnest(string_to_array(s.setting, ',')) l where s.name = 'shared_preload_libraries' and trim(l) <>"
         " ''"},
    {.id = "extensions",
     .passes = "the standby has the same extensions",
     .finds = "extensions differ",
     .remedy =
         "install the extension's package on the standby's host; CREATE EXTENSION or ALTER EXTENSION ... "
         "UPDATE there",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .compares = true,
     .prepared = true,
     .missing = CHECK_FAIL,
     .extra = CHECK_PASS,
     .differs = CHECK_WARN,
     .sql = "select extname::text, extversion from pg_extension"},
    {.id = "extensions",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .compares = true,
     .missing = CHECK_FAIL,
     .extra = CHECK_PASS,
     .differs = CHECK_PASS,
     .sql = "select extname::text, '' from pg_extension",
     .standby_sql = "select name::text, '' from pg_available_extensions"},
    {.id = "scheduled_jobs",
     .passes = "no scheduler runs inside the databases",
     .finds = "a scheduler runs inside the database: its jobs must stay off on the standby",
     .remedy = "disable its jobs on the standby, and enable them after the cutover",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .sql = "select 'warn', extname::text, '' from pg_extension where extname in ('pg_cron', 'pg_timetable',"
            " 'pgagent', 'timescaledb', 'pg_partman')"},
    {.id = "roles",
     .passes = "the standby has the same roles",
     .finds = "roles differ",
     .remedy = "switchback prepare copies roles that are missing; ALTER ROLE where attributes differ",
     .on = CHECK_ON_BOTH,
     .compares = true,
     .missing = CHECK_WARN,
     .extra = CHECK_PASS,
     .differs = CHECK_WARN,
     .sql =
         "select r.rolname::text, concat_ws(' ', case when rolcanlogin then 'login' end, case when rolsuper"
         " then 'superuser' end, case when rolinherit then null else 'noinherit' end, case when"
         " rolcreaterole then 'createrole' end, case when rolcreatedb then 'createdb' end, case when"
         " rolreplication then 'replication' end, case when rolbypassrls then 'bypassrls' end, 'limit ' ||"
         " nullif(rolconnlimit, -1), 'until ' || nullif(rolvaliduntil, 'infinity')), case when"
         " current_setting('switchback.prepared')::boolean and rolcanlogin then 'fail' end from pg_roles r"
         " where " OWN_ROLE},
    {.id = "roles",
     .on = CHECK_ON_BOTH,
     .compares = true,
     .prepared = true,
     .missing = CHECK_WARN,
     .extra = CHECK_PASS,
     .differs = CHECK_PASS,
     .sql = "select distinct format('%I member of %I', m.rolname, g.rolname), '' from pg_auth_members a join"
            " pg_roles m on m.oid = a.member join pg_roles g on g.oid = a.roleid where m.rolname !~ '^pg_'"},
    {.id = "verifiers",
     .passes = "passwords are the same on both sides",
     .finds = "passwords differ: a client could log in to one side only",
     .remedy = "switchback prepare makes them equal (it copies the active side's verifiers)",
     .on = CHECK_ON_BOTH,
     .compares = true,
     .missing = CHECK_PASS,
     .extra = CHECK_PASS,
     .differs = CHECK_FAIL,
     .secret = true,
     .sql = "select rolname::text, md5(coalesce(rolpassword, '')), null, case when"
            " current_setting('switchback.prepared')::boolean and rolpassword is not null then 'fail' else "
            "'warn'"
            " end from pg_authid where rolname !~ '^pg_' and"
            " (rolcanlogin or rolname = current_setting('switchback.manager'))"},
    {.id = "verifiers",
     .on = CHECK_ON_ACTIVE,
     .sql =
         "select 'warn', rolname::text, 'an md5 password: no login by SCRAM' from pg_authid where rolpassword"
         " like 'md5%' and rolcanlogin and not current_setting('switchback.md5_allowed')::boolean order by "
         "2"},
    {.id = "role_settings",
     .passes = "roles and databases have the same settings on both sides",
     .finds = "ALTER ROLE or ALTER DATABASE ... SET differ",
     .remedy = "set them on the standby as on the active side",
     .on = CHECK_ON_BOTH,
     .compares = true,
     .prepared = true,
     .missing = CHECK_WARN,
     .extra = CHECK_WARN,
     .differs = CHECK_WARN,
     .sql =
         "select concat_ws(' in ', coalesce(r.rolname, 'every role'), d.datname) || ': ' ||"
         " split_part(c.setting, '=', 1), substr(c.setting, strpos(c.setting, '=') + 1) from"
         " pg_db_role_setting s cross join lateral unnest(s.setconfig) as c (setting) left join pg_database d"
         " on d.oid = s.setdatabase left join pg_roles r on r.oid = s.setrole where d.datname is null or"
         " " MANAGED_DATABASE("d.datname")},
    {.id = "grants",
     .passes = "owners and privileges are the same on both sides",
     .finds = "owners or privileges differ",
     .remedy = "GRANT, REVOKE or ALTER ... OWNER TO on the standby",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .compares = true,
     .prepared = true,
     .missing = CHECK_PASS,
     .extra = CHECK_PASS,
     .differs = CHECK_WARN,
     .sql =
         "select case c.relkind when 'S' then 'sequence ' else 'table ' end || format('%I.%I', n.nspname,"
         " c.relname), concat('owner ', c.relowner::regrole, '; ', " RELATION_PRIVILEGES ") from pg_class c"
         " join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')"
         " and c.relpersistence <> 't' and " USER_NAMESPACE " and " NOT_OF_EXTENSION("pg_class", "c.oid")},
    {.id = "grants",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .compares = true,
     .prepared = true,
     .missing = CHECK_PASS,
     .extra = CHECK_PASS,
     .differs = CHECK_WARN,
     .sql = "select 'schema ' || quote_ident(n.nspname), concat('owner ', n.nspowner::regrole, '; ',"
            " " SCHEMA_PRIVILEGES ") from pg_namespace n where " USER_NAMESPACE " and n.nspname <> 'public'"},
    {.id = "grants",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .compares = true,
     .prepared = true,
     .missing = CHECK_PASS,
     .extra = CHECK_PASS,
     .differs = CHECK_WARN,
     .sql = "select 'function ' || p.oid::regprocedure, concat('owner ', p.proowner::regrole, '; ',"
            " " FUNCTION_PRIVILEGES ") from pg_proc p join pg_namespace n on n.oid = p.pronamespace where"
            " " USER_NAMESPACE " and " NOT_OF_EXTENSION("pg_proc", "p.oid")},
    {.id = "grants",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .compares = true,
     .prepared = true,
     .missing = CHECK_PASS,
     .extra = CHECK_PASS,
     .differs = CHECK_WARN,
     .sql = "select 'database', " DATABASE_PRIVILEGES
            " from pg_database d where d.datname = current_database()"},
    {.id = "event_triggers",
     .passes = "both sides have the same event triggers",
     .finds = "event triggers differ",
     .remedy = "create or drop them on the standby",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .compares = true,
     .prepared = true,
     .missing = CHECK_WARN,
     .extra = CHECK_WARN,
     .differs = CHECK_WARN,
     .sql =
         "select evtname::text, concat(evtevent, ' ', evtenabled) from pg_event_trigger where evtfoid not in"
         " (select oid from pg_proc where pronamespace = (select oid from pg_namespace where nspname ="
         " 'switchback'))"},
};

const struct check_group check_parity = {checks, ARRAY_LENGTH(checks)};
