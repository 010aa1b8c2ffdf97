/* prepare, step 1: the checks without which nothing else makes sense. */
#include "replication/check_run.h"
#include "replication/prepare.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const needed[] = {"reachable",
                                     "version",
                                     "manager",
                                     "wal_level",
                                     "slots",
                                     "wal_senders",
                                     "workers",
                                     "databases",
                                     "sync_workers",
                                     "read_only",
                                     "encoding",
                                     "extensions",
                                     "row_security",
                                     "replica_identity",
                                     "identity_full",
                                     "replica_sessions",
                                     "other_subscriptions",
                                     NULL};

/* "prepared" is in every list, and fails before the first prepare: that is what we are here for. */
static bool is_reason(const struct check_item *item)
{
    return item->state == CHECK_FAIL && strcmp(item->id, "prepared") != 0;
}

static void put_reasons(struct strbuf *text, const struct check_item *item)
{
    enum { SHOWN = 4 };
    strbuf_printf(text, "%s%s: %s", text->length == 0 ? "" : "; ", item->id, item->message);
    for (size_t i = 0; i < item->objects.count && i < SHOWN; i++) {
        strbuf_printf(text, "%s%s", i == 0 ? " (" : ", ", item->objects.items[i]);
    }
    if (item->objects.count > 0) {
        strbuf_puts(text, item->objects.count > SHOWN ? ", ...)" : ")");
    }
}

static bool judge(const struct check_items *items, struct error *error)
{
    const char *remedy = NULL;
    struct strbuf text;
    strbuf_init(&text, ERROR_MESSAGE_SIZE - 1);
    for (size_t i = 0; i < items->count; i++) {
        if (is_reason(&items->items[i])) {
            put_reasons(&text, &items->items[i]);
            remedy = remedy == NULL ? items->items[i].remedy : remedy;
        }
    }
    if (remedy != NULL) {
        error_set(error, ERROR_CHECK_FAILED, "%s", strbuf_text(&text));
        error_remedy(error, "%s", remedy);
    }
    strbuf_deinit(&text);
    return remedy == NULL;
}

/* Told, not refused: copying takes longer, that's all. */
static bool tell_jobs(struct prepare *prepare, struct error *error)
{
    char *workers = blocking_value(prepare->clusters[prepare->standby], error,
                                   "select current_setting('max_sync_workers_per_subscription')", 0, NULL);
    if (workers == NULL) {
        return false;
    }
    int64_t most = strtoll(workers, NULL, 10);
    free(workers);
    if (most < prepare->brief->jobs) {
        prepare_say(prepare, -1, -1,
                    "%s copies %" PRId64 " tables of a database at a time, prepare.jobs is %" PRId64
                    ": ALTER SYSTEM SET max_sync_workers_per_subscription there, then reload",
                    side_name(prepare->standby), most, prepare->brief->jobs);
    }
    return true;
}

bool prepare_settings(struct prepare *prepare, struct error *error)
{
    struct check_items items = {0};
    bool ok = check_run(prepare->task, prepare->brief, prepare->active, needed, &items, error) &&
              judge(&items, error);
    for (size_t i = 0; ok && i < items.count; i++) {
        if (items.items[i].state == CHECK_WARN) {
            prepare_say(prepare, -1, -1, "warning: %s", items.items[i].message);
        }
    }
    check_items_deinit(&items);
    return ok && tell_jobs(prepare, error);
}
