/* What a stream needs of a cluster, and what running work would keep a flip waiting. */
#include "replication/check.h"

#include <stdlib.h>

#define DATABASES                "cardinality(current_setting('switchback.databases')::text[])"
#define MANAGED_DATABASE(column) column " = any (current_setting('switchback.databases')::text[])"
/* What prepare has built needs no further room. */
#define NEEDED "case when current_setting('switchback.prepared')::boolean then 0 else " DATABASES " end"

static enum check_state judge_version(const char *active, const char *standby)
{
    return strtol(standby, NULL, 10) / 10000 < strtol(active, NULL, 10) / 10000 ? CHECK_WARN : CHECK_PASS;
}

static enum check_state judge_not_less(const char *active, const char *standby)
{
    return strtol(standby, NULL, 10) < strtol(active, NULL, 10) ? CHECK_WARN : CHECK_PASS;
}

static const struct check checks[] = {
    {.id = "version",
     .passes = "both versions are supported, and the standby's is not the older one",
     .finds = "versions",
     .remedy = "13 to 18 are supported; a standby older than the active side may reject its statements",
     .on = CHECK_ON_BOTH,
     .sql = "select 'fail', current_setting('server_version'), 'not supported' where"
            " current_setting('server_version_num')::int not between 130000 and 189999"},
    {.id = "version",
     .on = CHECK_ON_BOTH,
     .compares = true,
     .judge = judge_version,
     .sql = "select 'server_version_num', current_setting('server_version_num')"},
    {.id = "manager",
     .passes = "the manager is a superuser on both sides",
     .finds = "the manager lacks what it needs",
     .remedy = "ALTER ROLE (the manager) SUPERUSER REPLICATION LOGIN on that side",
     .on = CHECK_ON_BOTH,
     .sql = "select 'fail', current_user::text, l.what from pg_roles r cross join lateral (values"
            " (not r.rolreplication, 'REPLICATION: create slots, let the other side stream'),"
            " (not r.rolbypassrls, 'BYPASSRLS: apply rows to tables with row security'),"
            " (not r.rolcreatedb, 'CREATEDB: create missing databases on the standby'),"
            " (not r.rolcreaterole, 'CREATEROLE: create missing roles on the standby'),"
            " (not has_table_privilege('pg_catalog.pg_authid', 'select'), 'reading pg_authid: verifiers'),"
            " (not pg_has_role('pg_signal_backend', 'member'), 'pg_signal_backend: end foreign sessions'),"
            " (not pg_has_role('pg_read_all_settings', 'member'), 'pg_read_all_settings'),"
            " (true, 'superuser: event triggers, subscriptions, session_replication_role, fence triggers on"
            " tables that others own')) as l (lacks, what) where r.rolname = current_user and not r.rolsuper"
            " and l.lacks"},
    {.id = "wal_level",
     .passes = "wal_level is logical on both sides",
     .finds = "wal_level is not logical",
     .remedy = "ALTER SYSTEM SET wal_level = logical, then restart that side",
     .on = CHECK_ON_BOTH,
     .sql = "select 'fail', 'wal_level', current_setting('wal_level') where current_setting('wal_level') <>"
            " 'logical'"},
    {.id = "slots",
     .passes = "replication slots and origins are free",
     .finds = "too few replication slots",
     .remedy = "ALTER SYSTEM SET max_replication_slots = 20, then restart that side",
     .on = CHECK_ON_BOTH,
     .sql =
         "select case when free < need then 'fail' else 'warn' end, 'max_replication_slots',"
         " format('%s free, %s needed, and %s more while tables are copied', free, need, sync) from (select"
         " current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots) as"
         " free, " NEEDED " as need, " NEEDED " * 2 as sync) s where free < need + sync"},
    {.id = "slots",
     .on = CHECK_ON_BOTH,
     .from_version = 180000,
     .sql = "select 'fail', 'max_active_replication_origins', format('%s free, %s needed', free, need) from"
            " (select current_setting('max_active_replication_origins')::int - (select count(*) from"
            " pg_replication_origin_status) as free, " NEEDED " * 3 as need) s where free < need"},
    {.id = "wal_senders",
     .passes = "WAL senders are free",
     .finds = "too few WAL senders",
     .remedy = "ALTER SYSTEM SET max_wal_senders = 20, then restart that side",
     .on = CHECK_ON_BOTH,
     .sql =
         "select case when free < need then 'fail' else 'warn' end, 'max_wal_senders',"
         " format('%s free, %s needed, and %s more while tables are copied', free, need, sync) from (select"
         " current_setting('max_wal_senders')::int - (select count(*) from pg_stat_replication) as free,"
         " " NEEDED " as need, " NEEDED " * 2 as sync) s where free < need + sync"},
    {.id = "workers",
     .passes = "replication workers suffice",
     .finds = "too few replication workers",
     .remedy =
         "ALTER SYSTEM SET max_logical_replication_workers and max_worker_processes (each at least 3 for "
         "a managed database, and max_parallel_workers beside them), then restart that side",
     .on = CHECK_ON_BOTH,
     .sql =
         "select case when v < " DATABASES " + 1 then 'fail' else 'warn' end, s, format('is %s; %s managed"
         " databases need %s, and as many again while tables are copied', v, " DATABASES ", " DATABASES
         " + 1) from (select name as s, setting::int as v from pg_settings where name in"
         " ('max_logical_replication_workers', 'max_worker_processes')) w where v < " DATABASES " * 2 + 1"},
    {.id = "sync_workers",
     .passes = "tables can be copied in parallel",
     .finds = "no workers to copy tables with",
     .remedy = "ALTER SYSTEM SET max_sync_workers_per_subscription = 2, then reload",
     .on = CHECK_ON_BOTH,
     .sql = "select 'fail', name, setting from pg_settings where name = 'max_sync_workers_per_subscription'"
            " and setting::int < 1"},
    {.id = "connections",
     .passes = "the standby takes as many connections as the active side",
     .finds = "max_connections on the standby is less than on the active side",
     .remedy = "ALTER SYSTEM SET max_connections to the active side's value, then restart the standby",
     .on = CHECK_ON_BOTH,
     .compares = true,
     .judge = judge_not_less,
     .sql = "select 'max_connections', current_setting('max_connections')"},
    {.id = "slot_limits",
     .passes = "no limit can end a slot behind our back",
     .finds = "limits that can invalidate a slot, and close the way back with it",
     .remedy = "ALTER SYSTEM RESET max_slot_wal_keep_size (and idle_replication_slot_timeout), then reload; "
               "or make sure that the limit outlasts the watch",
     .on = CHECK_ON_BOTH,
     .sql = "select 'warn', name, setting || coalesce(unit, '') from pg_settings where"
            " name = 'max_slot_wal_keep_size' and setting <> '-1'"
            " or name = 'idle_replication_slot_timeout' and setting <> '0' order by 2"},
    {.id = "retry_interval",
     .passes = "replication workers start at once",
     .finds = "wal_retrieve_retry_interval delays the start of a replication worker, so the way back opens "
              "late",
     .remedy = "ALTER SYSTEM SET wal_retrieve_retry_interval = '100ms', then reload that side",
     .on = CHECK_ON_BOTH,
     .sql = "select 'warn', name, setting || ' ms' from pg_settings where name ="
            " 'wal_retrieve_retry_interval' and setting::int > 500"},
    {.id = "read_only",
     .passes = "no side is read-only by default",
     .finds = "sessions start read-only",
     .remedy = "RESET default_transaction_read_only where it is set; switchback's fence does this work",
     .on = CHECK_ON_BOTH,
     .sql =
         "select 'fail', 'default_transaction_read_only', 'in the configuration' from pg_settings where"
         " name = 'default_transaction_read_only' and reset_val = 'on'"
         " union all select 'fail', coalesce(d.datname, 'every database'), 'set for '"
         " || coalesce(r.rolname, 'every role') from pg_db_role_setting s left join pg_database d on d.oid ="
         " s.setdatabase left join pg_roles r on r.oid = s.setrole where 'default_transaction_read_only=on' ="
         " any (s.setconfig) and (d.datname is null or " MANAGED_DATABASE(
             "d.datname") ")"
                          " union all select 'fail', 'recovery', 'this side is a physical standby' where "
                          "pg_is_in_recovery()"},
    {.id = "replica_sessions",
     .passes = "no role or database sets session_replication_role",
     .finds = "session_replication_role is set: triggers and foreign keys don't fire in such sessions",
     .remedy = "RESET session_replication_role for that role or database",
     .on = CHECK_ON_BOTH,
     .sql = "select 'fail', coalesce(r.rolname, 'every role'), format('%s in %s', c.setting,"
            " coalesce(d.datname, 'every database')) from pg_db_role_setting s cross join lateral"
            " unnest(s.setconfig) as c (setting) left join pg_database d on d.oid = s.setdatabase left join"
            " pg_roles r on r.oid = s.setrole where c.setting like 'session\\_replication\\_role=%'"
            " and c.setting <> 'session_replication_role=origin' union all select 'fail',"
            " 'session_replication_role', 'in the configuration' from pg_settings where name ="
            " 'session_replication_role' and reset_val <> 'origin'"},
    {.id = "prepared_transactions",
     .passes = "no prepared transactions",
     .finds = "prepared transactions: COMMIT PREPARED would pass the fence, and slots wait for them",
     .remedy = "COMMIT PREPARED or ROLLBACK PREPARED each of them",
     .on = CHECK_ON_BOTH,
     .sql = "select case when " MANAGED_DATABASE(
         "database") " then 'fail' else 'warn' end, gid, format('database %s, by %s, %s old', database, "
                     "owner,"
                     " date_trunc('second', now() - prepared)) from pg_prepared_xacts order by 2"},
    {.id = "long_transactions",
     .passes = "no transaction is older than a minute",
     .finds = "long transactions: they delay drain, slots and the start of a stream",
     .remedy = "let them end, or pg_terminate_backend(pid)",
     .on = CHECK_ON_BOTH,
     .sql = "select 'warn', 'pid ' || pid, format('%s in %s, %s, %s old', usename, datname, state,"
            " date_trunc('second', now() - xact_start)) from pg_stat_activity where backend_type ="
            " 'client backend' and xact_start < now() - interval '1 minute' and pid <> pg_backend_pid()"
            " order by xact_start"},
    {.id = "busy_tables",
     .passes = "nothing running would keep the fence waiting",
     .finds = "work that doesn't yield its locks would keep the fence waiting",
     .remedy = "let it end before the cutover",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_ACTIVE,
     .sql =
         "select 'fail', p.relid::regclass::text, format('pid %s: %s', p.pid, p.command) from"
         " pg_stat_progress_create_index p where p.datname = current_database() union all"
         " select 'fail', l.relation::regclass::text, format('pid %s: %s', a.pid, a.query) from"
         " pg_stat_activity a join pg_locks l on l.pid = a.pid and l.locktype = 'relation' and l.granted and"
         " l.mode in ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',"
         " 'AccessExclusiveLock') join pg_class c on c.oid = l.relation and c.relkind = 'r' join pg_namespace"
         " n on n.oid = c.relnamespace and " USER_NAMESPACE " where a.datname = current_database() and"
         " l.database = (select oid from pg_database where datname = current_database()) and"
         " (a.query like 'autovacuum: %(to prevent wraparound)' or a.backend_type = 'client backend' and"
         " a.query ~* '^\\s*(vacuum|create|reindex|cluster|alter|lock)' and a.pid <> pg_backend_pid()"
         " and a.application_name not like 'switchback%') and a.pid not in (select pid from"
         " pg_stat_progress_create_index) order by 2"},
};

const struct check_group check_resources = {checks, ARRAY_LENGTH(checks)};
