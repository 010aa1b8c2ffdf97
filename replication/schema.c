#include "replication/schema.h"

#include "replication/sql.h"

extern const char schema_sql[], schema_flip_sql[], schema_promise_sql[];

/* FNV-1a (RFC draft-eastlake-fnv), as far as a positive integer holds it. */
int64_t schema_version(void)
{
    const char *const texts[] = {schema_sql, schema_flip_sql, schema_promise_sql};
    uint32_t digest = UINT32_C(2166136261);
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        for (const char *at = texts[i]; *at != '\0'; at++) {
            digest = (digest ^ (uint8_t)*at) * UINT32_C(16777619);
        }
    }
    return digest & INT32_MAX;
}

static const char *standing_text(enum standing standing)
{
    switch (standing) {
    case STANDING_ACTIVE:
        return "active";
    case STANDING_DIVERGED:
        return "diverged";
    case STANDING_NONE:
    case STANDING_STANDBY:
        break;
    }
    return "standby";
}

void schema_install(struct strbuf *sql, const struct settings *settings,
                    const struct schema_identity *identity)
{
    strbuf_puts(sql, "begin;\n");
    strbuf_puts(sql, schema_sql);
    strbuf_puts(sql, schema_flip_sql);
    strbuf_puts(sql, schema_promise_sql);
    sql_format(
        sql,
        "insert into switchback.state (version, pair, side, system_identifier, timeline, standing, epoch,"
        " owner, manager) select %d, %L, %L, (select system_identifier::text from pg_control_system()),"
        " ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint,"
        " %L, %u, %u, session_user on conflict (one) do nothing;\n",
        schema_version(), identity->pair, side_name(identity->side), standing_text(identity->standing),
        identity->epoch, identity->owner);
    sql_format(sql, "update switchback.state set version = %d, manager = session_user, migrators = ",
               schema_version());
    sql_text_array(sql, &settings->migrators);
    strbuf_puts(sql, ", local_tables = ");
    sql_text_array(sql, &settings->local_tables);
    strbuf_puts(sql, ";\ncommit;\n");
}

void schema_fences(struct strbuf *sql)
{
    strbuf_puts(sql, "call switchback.install_fences(0, 0, 0)");
}
