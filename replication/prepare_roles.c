/* prepare, steps 2 and 3: roles and databases. Both only add; what differs otherwise is check's to tell. */
#include "replication/prepare.h"

#include <stdlib.h>
#include <string.h>

/*
 * Each query answers with the statements that the standby may lack, and the key under which it would list
 * what it has already: (key, statement). A key that the standby doesn't know gets its statement.
 */
struct transfer {
    const char *what;
    const char *have; /* keys of the standby */
    const char *want; /* keys and statements of the active side */
    bool optional; /* a statement that the standby refuses is only told: it concerns one grant or setting */
};

#define ALL_ROLES "rolname !~ '^pg_'"
/* Settings whose value is a list of quoted names already (GUC_LIST_QUOTE). */
#define SETTING_VALUE                                                                                        \
    "case when c.name in ('search_path', 'temp_tablespaces', 'local_preload_libraries',"                     \
    " 'session_preload_libraries') then c.value else quote_literal(c.value) end"
#define ROLE_SETTINGS                                                                                        \
    " from pg_db_role_setting s cross join lateral (select split_part(u, '=', 1) as name, substr(u,"         \
    " strpos(u, '=') + 1) as value from unnest(s.setconfig) u) c left join pg_database d on d.oid ="         \
    " s.setdatabase left join pg_roles r on r.oid = s.setrole where coalesce(" ALL_ROLES ", true)"
#define SETTING_KEY "format('%s/%s/%s', r.rolname, d.datname, c.name)"

static const struct transfer roles = {
    .what = "role",
    .have = "select rolname::text from pg_authid where " ALL_ROLES,
    .want =
        "select rolname::text, format('create role %I %s %s %s %s %s %s %s connection limit %s%s%s', rolname,"
        " case when rolsuper then 'superuser' else 'nosuperuser' end,"
        " case when rolinherit then 'inherit' else 'noinherit' end,"
        " case when rolcreaterole then 'createrole' else 'nocreaterole' end,"
        " case when rolcreatedb then 'createdb' else 'nocreatedb' end,"
        " case when rolcanlogin then 'login' else 'nologin' end,"
        " case when rolreplication then 'replication' else 'noreplication' end,"
        " case when rolbypassrls then 'bypassrls' else 'nobypassrls' end, rolconnlimit,"
        " ' password ' || quote_literal(rolpassword), ' valid until ' || quote_literal(rolvaliduntil::text))"
        " from pg_authid where " ALL_ROLES " order by 1"};

/* A role without a password on the active side keeps the one that the standby has: we may log in with it. */
static const struct transfer verifiers = {
    .what = "verifier",
    .have = "select concat(rolname, '/', rolpassword) from pg_authid where " ALL_ROLES,
    .want =
        "select concat(rolname, '/', rolpassword), format('alter role %I password %L', rolname, rolpassword)"
        " from pg_authid where " ALL_ROLES " and rolpassword is not null order by 1"};

static const struct transfer memberships = {
    .what = "membership",
    .have = "select format('%I/%I', m.rolname, g.rolname) from pg_auth_members a join pg_roles m on m.oid ="
            " a.member join pg_roles g on g.oid = a.roleid",
    .want =
        "select format('%I/%I', m.rolname, g.rolname), format('grant %I to %I%s', g.rolname, m.rolname, case"
        " when bool_or(a.admin_option) then ' with admin option' end) from pg_auth_members a join pg_roles m"
        " on m.oid = a.member join pg_roles g on g.oid = a.roleid where m.rolname !~ '^pg_'"
        " group by m.rolname, g.rolname order by 1",
    .optional = true};

static const struct transfer role_settings = {
    .what = "role setting",
    .have = "select " SETTING_KEY ROLE_SETTINGS " and s.setdatabase = 0",
    .want =
        "select " SETTING_KEY ", format('alter role %s set %s to ', case when r.oid is null then 'all' else"
        " quote_ident(r.rolname) end, (select string_agg(quote_ident(p), '.') from"
        " unnest(string_to_array(c.name, '.')) p)) || " SETTING_VALUE ROLE_SETTINGS " and s.setdatabase = 0",
    .optional = true};

static const struct transfer database_settings = {
    .what = "database setting",
    .have = "select " SETTING_KEY ROLE_SETTINGS " and d.datname = $1",
    .want =
        "select " SETTING_KEY ", case when r.oid is null then format('alter database %I', d.datname) else"
        " format('alter role %I in database %I', r.rolname, d.datname) end || format(' set %s to ', (select"
        " string_agg(quote_ident(p), '.') from unnest(string_to_array(c.name, '.')) p)) ||"
        " " SETTING_VALUE ROLE_SETTINGS " and d.datname = $1",
    .optional = true};

#define DATABASE_GRANTS                                                                                      \
    " from pg_database d cross join lateral aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x"     \
    " left join pg_roles g on g.oid = x.grantee where d.datname = $1 and x.grantee <> d.datdba"
#define GRANT_KEY "concat(g.rolname, '/', x.privilege_type, '/', x.is_grantable)"

static const struct transfer database_grants = {
    .what = "database privilege",
    .have = "select " GRANT_KEY DATABASE_GRANTS,
    .want =
        "select " GRANT_KEY ", format('grant %s on database %I to %s%s', x.privilege_type, d.datname, case"
        " when g.oid is null then 'public' else quote_ident(g.rolname) end, case when x.is_grantable then"
        " ' with grant option' end)" DATABASE_GRANTS,
    .optional = true};

static bool knows(const PGresult *have, const char *key)
{
    for (int row = 0; row < PQntuples(have); row++) {
        if (strcmp(row_text(have, row, 0), key) == 0) {
            return true;
        }
    }
    return false;
}

static bool apply(struct prepare *prepare, const struct transfer *transfer, const PGresult *have,
                  const PGresult *want, struct error *error)
{
    struct blocking *standby = prepare->clusters[prepare->standby];
    for (int row = 0; row < PQntuples(want); row++) {
        if (knows(have, row_text(want, row, 0))) {
            continue;
        }
        prepare_say(prepare, (double)row / PQntuples(want), -1, "%s %d of %d", transfer->what, row + 1,
                    PQntuples(want));
        if (blocking_run(standby, error, row_text(want, row, 1))) {
            continue;
        }
        if (!transfer->optional || error->code != ERROR_SQL) {
            return false;
        }
        prepare_say(prepare, -1, -1, "warning: a %s was refused: %s", transfer->what, error->message);
    }
    return true;
}

/* `database`: the parameter of the queries, or NULL if they have none. */
static bool copy(struct prepare *prepare, const struct transfer *transfer, const char *database,
                 struct error *error)
{
    const char *const parameters[] = {database};
    size_t count = database == NULL ? 0 : 1;
    PGresult *have =
        blocking_query(prepare->clusters[prepare->standby], error, transfer->have, count, parameters);
    PGresult *want = have == NULL ? NULL
                                  : blocking_query(prepare->clusters[prepare->active], error, transfer->want,
                                                   count, parameters);
    bool ok = want != NULL && apply(prepare, transfer, have, want, error);
    PQclear(have);
    PQclear(want);
    return ok;
}

/* Verifiers pass through our statements: no log of the server may keep them. */
static bool hide_statements(struct prepare *prepare, struct error *error)
{
    return blocking_run(prepare->clusters[prepare->standby], error,
                        "set log_statement = none; set log_min_duration_statement = -1;"
                        "set log_min_error_statement = panic; set log_parser_stats = off");
}

bool prepare_roles(struct prepare *prepare, struct error *error)
{
    return hide_statements(prepare, error) && copy(prepare, &roles, NULL, error) &&
           copy(prepare, &verifiers, NULL, error) && copy(prepare, &memberships, NULL, error) &&
           copy(prepare, &role_settings, NULL, error);
}

/* The statement that makes the database as it is on the active side; to_jsonb because the columns changed
 * from version to version. */
static const char describe_database[] =
    "select format('create database %I template template0 owner %I encoding %L lc_collate %L lc_ctype %L%s"
    " connection limit %s', d.datname, pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), "
    "d.datcollate,"
    " d.datctype, case j.d ->> 'datlocprovider' when 'i' then format(' locale_provider icu icu_locale %L',"
    " coalesce(j.d ->> 'daticulocale', j.d ->> 'datlocale')) when 'b' then format(' locale_provider builtin"
    " builtin_locale %L', j.d ->> 'datlocale') end, d.datconnlimit) from pg_database d cross join lateral"
    " (select to_jsonb(d) as d) j where d.datname = $1";

static bool create_database(struct prepare *prepare, const char *name, struct error *error)
{
    const char *const parameters[] = {name};
    char *statement =
        blocking_value(prepare->clusters[prepare->active], error, describe_database, 1, parameters);
    if (statement == NULL) {
        return false;
    }
    prepare_say(prepare, -1, -1, "creating database %s", name);
    bool ok = blocking_run(prepare->clusters[prepare->standby], error, statement);
    if (!ok && error->code == ERROR_SQL) {
        error_remedy(error,
                     "its locale must exist on the standby's host; or create the database there by hand");
    }
    free(statement);
    if (ok) {
        /* What others may do by default is given again below, as far as the active side gives it. */
        struct strbuf sql;
        strbuf_init(&sql, SQL_LIMIT);
        sql_format(&sql, "revoke all on database %I from public", name);
        ok = blocking_run_buffer(prepare->clusters[prepare->standby], error, &sql);
        strbuf_deinit(&sql);
    }
    return ok;
}

bool prepare_databases(struct prepare *prepare, struct error *error)
{
    static const char exists[] = "select count(*) from pg_database where datname = $1";
    for (size_t i = 0; i < prepare->database_count; i++) {
        const char *name = prepare->databases[i].name;
        const char *const parameters[] = {name};
        char *found = blocking_value(prepare->clusters[prepare->standby], error, exists, 1, parameters);
        if (found == NULL) {
            return false;
        }
        bool missing = strcmp(found, "0") == 0;
        free(found);
        if ((missing && !create_database(prepare, name, error)) ||
            !copy(prepare, &database_settings, name, error) ||
            !copy(prepare, &database_grants, name, error)) {
            return false;
        }
    }
    for (size_t i = 0; i < prepare->database_count; i++) {
        if (prepare_connect(prepare, i, prepare->active, error) == NULL ||
            prepare_connect(prepare, i, prepare->standby, error) == NULL) {
            return false;
        }
    }
    return true;
}
