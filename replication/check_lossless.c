/* What would break the promise that commits on the active side are on the other one, or keep it from being
 * given. */
#include "replication/check.h"

#define LOSSLESS "current_setting('switchback.lossless')::boolean"
#define NAMES    "current_setting('synchronous_standby_names')"
/* Names of our slots and nothing else, as standby_names_are_ours() takes them. */
#define OURS "'^\\s*((first|any)\\s+)?([0-9]+\\s*)?[(]?(\\s*\"?switchback_[a-z0-9_]+\"?\\s*,?)+\\s*[)]?\\s*$'"
/* A commit under these returns before the other side has flushed it. */
#define WEAK "in ('off', 'local', 'remote_write', 'false', 'no', '0')"

static const struct check checks[] = {
    {.id = "synchronous_standbys",
     .passes = "no commit waits for another standby",
     .finds = "synchronous_standby_names is in use: commits wait for those standbys, ours too",
     .remedy = "flip.lossless needs it for itself: free it, or set flip.lossless to false; then make sure "
               "that those"
               " standbys keep up, and that the standby side has its own",
     .on = CHECK_ON_BOTH,
     .sql = "select case when " LOSSLESS " then 'fail' else 'warn' end, 'synchronous_standby_names', " NAMES
            " where " NAMES " <> '' and " NAMES " !~* " OURS
            " union all select 'fail', 'synchronous_standby_names',"
            " format('set by %s: it can''t be changed while the server runs', source) from pg_settings "
            "where " LOSSLESS
            " and name = 'synchronous_standby_names' and source = 'command line' union all select 'fail',"
            " 'synchronous_standby_names', format('%s in %s: it comes back when ours is taken away', "
            "setting, sourcefile)"
            " from pg_file_settings where " LOSSLESS
            " and name = 'synchronous_standby_names' and setting <> '' and"
            " sourcefile not like '%postgresql.auto.conf' and setting is distinct from " NAMES},
    {.id = "alter_system",
     .passes = "ALTER SYSTEM can be used",
     .finds = "ALTER SYSTEM is forbidden: the names that commits wait for can't be set",
     .remedy = "set allow_alter_system = on in that server's configuration, then reload it; or set "
               "flip.lossless to false",
     .on = CHECK_ON_BOTH,
     .from_version = 170000,
     .sql = "select 'fail', 'allow_alter_system', setting from pg_settings where " LOSSLESS
            " and name = 'allow_alter_system' and setting = 'off'"},
    {.id = "synchronous_commit",
     .passes = "nobody's commits return before they are safe on the other side",
     .finds = "synchronous_commit is weakened: such commits are acknowledged before the other side has them",
     .remedy = "RESET synchronous_commit for that role, database or function, or set flip.lossless to false",
     .on = CHECK_ON_BOTH,
     .sql = "select 'fail', 'synchronous_commit', format('%s in the configuration', reset_val) from "
            "pg_settings where"
            " " LOSSLESS " and name = 'synchronous_commit' and reset_val " WEAK " union all select 'fail',"
            " coalesce(r.rolname, 'every role'), format('%s in %s', c.setting, coalesce(d.datname, 'every "
            "database'))"
            " from pg_db_role_setting s cross join lateral unnest(s.setconfig) as c (setting) left join "
            "pg_database d on"
            " d.oid = s.setdatabase left join pg_roles r on r.oid = s.setrole where " LOSSLESS
            " and c.setting like"
            " 'synchronous\\_commit=%' and lower(split_part(c.setting, '=', 2)) " WEAK
            " and r.rolname is distinct from"
            " current_setting('switchback.manager') and (d.datname is null or d.datname = any"
            " (current_setting('switchback.databases')::text[]))"},
    {.id = "synchronous_commit",
     .scope = CHECK_DATABASE,
     .on = CHECK_ON_BOTH,
     .sql = "select 'warn', p.oid::regprocedure::text, c.setting from pg_proc p cross join lateral "
            "unnest(p.proconfig) as c"
            " (setting) where " LOSSLESS " and c.setting like 'synchronous\\_commit=%' and"
            " lower(split_part(c.setting, '=', 2)) " WEAK},
    {.id = "names_at_start",
     .passes = "commits wait from a server's first moment on",
     .finds =
         "right after a restart commits don't wait for a moment, whatever synchronous_standby_names says",
     .remedy = "update that server: 13.21, 14.18, 15.13, 16.9, 17.5 and later are mended",
     .on = CHECK_ON_BOTH,
     .sql = "select 'warn', 'server_version', current_setting('server_version') from (select"
            " current_setting('server_version_num')::int as v) s where " LOSSLESS
            " and v < 170005 and v not between"
            " 130021 and 139999 and v not between 140018 and 149999 and v not between 150013 and 159999 and "
            "v not between"
            " 160009 and 169999"},
};

const struct check_group check_lossless = {checks, ARRAY_LENGTH(checks)};
