/* What prepare built: state rows, fences, both streams. And what others stream from or into the same
 * databases. */
#include "replication/check.h"

#define THIS_DATABASE "(select oid from pg_database where datname = current_database())"
#define OUR_SUBSCRIPTION                                                                                     \
    "s.subname = current_setting('switchback.subscription') and s.subdbid = " THIS_DATABASE
#define IS_STANDBY "current_setting('switchback.side') = 'standby'"
/* A crash may take back what the other side will not send again (stream.h). */
#define NOT_FLUSHED                                                                                          \
    "select 'fail', s.subname::text, format('synchronous_commit is %s, not local: a crash may lose rows',"   \
    " s.subsynccommit) from pg_subscription s where " OUR_SUBSCRIPTION " and s.subsynccommit <> 'local'"

static const struct check checks[] = {
    {.id = "state",
     .passes = "both sides know what they are",
     .finds = "the state recorded in the clusters is not what it should be",
     .remedy =
         "switchback status says what is going on; switchback rejoin brings a diverged side back, switchback "
         "prepare mends what a restore, a failover or a changed configuration left behind",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .prepared = true,
     .sql =
         "select 'fail', 'standing', format('recorded as %s', standing) from switchback.state where standing "
         "<>"
         " current_setting('switchback.side') union all select 'fail', 'fence', format('fenced for flip %s',"
         " fenced_for) from switchback.state where fenced_for is not null union all select 'fail', 'cluster',"
         " 'not the one that was prepared: another system identifier' from switchback.state,"
         " pg_control_system() c where state.system_identifier <> c.system_identifier::text union all"
         " select 'fail', 'cluster', 'its timeline changed: it was restored or failed over' from"
         " switchback.state where not pg_is_in_recovery() and timeline <> ('x' ||"
         " substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint union all"
         " select 'fail', 'schema switchback', 'prepared by another version of switchback'"
         " from switchback.state where version::text <>"
         " current_setting('switchback.version') union all select 'fail', 'way back', format('ended by "
         "finalize, %s',"
         " date_trunc('second', finalized)) from switchback.state where finalized is not null union all"
         " select 'warn', 'configuration',"
         " 'migrators or local_tables changed since prepare' from switchback.state where migrators::text <>"
         " current_setting('switchback.migrators') or local_tables::text <>"
         " current_setting('switchback.local_tables')"},
    {.id = "state",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .compares = true,
     .prepared = true,
     .differs = CHECK_FAIL,
     .sql =
         "select k, v from switchback.state, lateral (values ('pair', pair), ('epoch', epoch::text)) as x (k,"
         " v)"},
    {.id = "table_sets",
     .passes = "managed tables, fences, publications and subscriptions are one set",
     .finds = "managed tables, fences, publications and subscriptions differ",
     .remedy = "switchback prepare",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .prepared = true,
     .sql = "select 'fail', fault, '' from switchback.table_fault() fault where fault is not null"},
    {.id = "fences",
     .passes = "the standby is fenced, the active side is not",
     .finds = "fence triggers are not as they should be",
     .remedy = "switchback prepare; then find out who changed them",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .prepared = true,
     .sql =
         "select 'fail', t.tgrelid::regclass::text, case when p.pronamespace <> 'switchback'::regnamespace or"
         " p.proname <> 'fence' then 'its fence calls another function' when " IS_STANDBY
         " then 'open' else 'fenced' end from pg_trigger t join pg_proc p on p.oid = t.tgfoid where t.tgname "
         "="
         " '" NAMES_FENCE_TRIGGER "' and (t.tgenabled <> case when " IS_STANDBY
         " then 'A' else 'D' end::\"char\" or p.pronamespace <> 'switchback'::regnamespace or p.proname <>"
         " 'fence') union all select 'fail', e.name, 'event trigger missing or disabled' from (values"
         " ('switchback_refuse_ddl'), ('switchback_restore_fences')) as e (name) where not exists (select "
         "from"
         " pg_event_trigger v where v.evtname = e.name and v.evtenabled = 'A') order by 2"},
    {.id = "stream",
     .passes = "the stream from the active side to the standby runs",
     .finds = "the stream from the active side to the standby does not run as it should",
     .remedy = "see the standby's server log; switchback prepare builds it anew where it was lost",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_STANDBY,
     .prepared = true,
     .sql =
         "select 'fail', current_setting('switchback.subscription'), 'missing' where not exists (select from"
         " pg_subscription s where " OUR_SUBSCRIPTION ") union all select 'fail', s.subname::text, case when"
         " s.subenabled then 'no worker: it fails, or waits to be started' else 'disabled' end from"
         " pg_subscription s where " OUR_SUBSCRIPTION " and (not s.subenabled or not exists (select from"
         " pg_stat_subscription w where w.subid = s.oid and w.relid is null and w.pid is not null)) union all"
         " " NOT_FLUSHED " union all"
         " select 'fail', r.srrelid::regclass::text, 'not copied yet' from pg_subscription s join"
         " pg_subscription_rel r on r.srsubid = s.oid where " OUR_SUBSCRIPTION " and r.srsubstate <> 'r'"},
    {.id = "stream",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_ACTIVE,
     .prepared = true,
     .sql = "select 'fail', current_setting('switchback.slot'), 'slot missing' where not exists (select from"
            " pg_replication_slots where slot_name = current_setting('switchback.slot')) union all select "
            "case when"
            " wal_status = 'lost' then 'fail' else 'warn' end, slot_name::text, case when wal_status = "
            "'lost' then"
            " 'slot lost' when wal_status = 'unreserved' then 'slot about to be lost' else pg_size_pretty("
            "pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)) || ' behind' end from"
            " pg_replication_slots where slot_name = current_setting('switchback.slot') and (wal_status in "
            "('lost',"
            " 'unreserved') or pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) > 1024 * 1024 * "
            "1024)"},
    {.id = "way_back",
     .passes = "the way back stands by: its subscription is disabled, its slot reserved",
     .finds = "the way back is not ready",
     .remedy = "switchback prepare",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_ACTIVE,
     .prepared = true,
     .sql =
         "select 'fail', current_setting('switchback.subscription'), 'missing' where not exists (select from"
         " pg_subscription s where " OUR_SUBSCRIPTION ") union all select 'fail', s.subname::text, 'enabled:"
         " rows would go round' from pg_subscription s where " OUR_SUBSCRIPTION " and s.subenabled union all"
         " " NOT_FLUSHED},
    {.id = "way_back",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_STANDBY,
     .prepared = true,
     .sql = "select 'fail', current_setting('switchback.slot'), 'slot missing' where not exists (select from"
            " pg_replication_slots where slot_name = current_setting('switchback.slot')) union all select "
            "case when"
            " wal_status = 'lost' then 'fail' else 'warn' end, slot_name::text, case when wal_status = "
            "'lost' then"
            " 'slot lost' else 'slot about to be lost' end from pg_replication_slots where slot_name ="
            " current_setting('switchback.slot') and wal_status in ('lost', 'unreserved')"},
    {.id = "other_subscriptions",
     .passes = "nobody else writes into the managed databases by replication",
     .finds = "other subscriptions write into a managed database: they pass fences, and run on both sides",
     .remedy = "DROP SUBSCRIPTION, or let it feed a database that is not managed",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .sql = "select 'fail', subname::text, case when subenabled then 'enabled' else 'disabled' end from"
            " pg_subscription where subdbid = " THIS_DATABASE
            " and subname not in ('switchback_from_blue', 'switchback_from_green')"},
    {.id = "other_slots",
     .passes = "nobody else streams from the managed databases",
     .finds = "logical slots of others: their consumers don't follow a cutover",
     .remedy = "give their consumer a slot on the other side before the cutover, or stop it",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_ACTIVE,
     .sql =
         "select 'warn', slot_name::text, format('plugin %s, %s', plugin, case when active then 'in use' else"
         " 'not in use' end) from pg_replication_slots where database = current_database() and slot_name not"
         " like 'switchback\\_%' and slot_name not like 'pg\\_%\\_sync\\_%'"},
    {.id = "statistics",
     .passes = "the standby's tables were analyzed",
     .finds = "tables without statistics on the standby: statements would be planned blindly",
     .remedy = "ANALYZE them on the standby, or switchback prepare",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_STANDBY,
     .prepared = true,
     .sql = WITH_MANAGED
     "select 'warn', m.name, '' from managed m where pg_relation_size(m.oid) > 0 and not exists"
     " (select from pg_statistic s where s.starelid = m.oid) and exists (select from"
     " pg_attribute a where a.attrelid = m.oid and a.attnum > 0) order by 2"},
};

const struct check_group check_streams = {checks, ARRAY_LENGTH(checks)};
