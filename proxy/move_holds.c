/* What a session holds, for people: the list that `sessions` shows. */
#include "proxy/move_internal.h"

const char *move_held_name(enum move_held held)
{
    static const char *const names[MOVE_HELD_COUNT] = {[MOVE_HELD_SETTING] = "setting",
                                                       [MOVE_HELD_STATEMENT] = "statement",
                                                       [MOVE_HELD_CHANNEL] = "channel",
                                                       [MOVE_HELD_ROLE] = "role",
                                                       [MOVE_HELD_USER] = "user"};
    return names[held];
}

static void note(struct move *move, enum move_held held, const char *name)
{
    size_t begin = move->holds.length;
    move->held[held]++;
    if (move->holds.failed) {
        return;
    }
    strbuf_printf(&move->holds, "%s ", move_held_name(held));
    for (const char *c = name; *c != '\0'; c++) { /* a name may be anything: it must not look like two */
        char shown = (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c;
        strbuf_append(&move->holds, &shown, 1);
    }
    strbuf_append(&move->holds, "\n", 1);
    if (move->holds.failed && move->holds.data != NULL) {
        move->holds.length = begin;
        move->holds.data[begin] = '\0';
    }
}

static void note_item(struct move *move, const struct snapshot_item *item)
{
    const char *name = snapshot_name(move->own, item);
    const char *value = snapshot_value(move->own, item);
    switch ((enum snapshot_kind)item->kind) {
    case SNAPSHOT_AUTHORIZATION:
        if (strcmp(name, "role") != 0) {
            note(move, MOVE_HELD_USER, value);
        } else if (strcmp(value, "none") != 0) {
            note(move, MOVE_HELD_ROLE, value);
        }
        break;
    case SNAPSHOT_SETTING:
    case SNAPSHOT_CUSTOM:
        note(move, MOVE_HELD_SETTING, name);
        break;
    case SNAPSHOT_CHANNEL:
        note(move, MOVE_HELD_CHANNEL, name);
        break;
    case SNAPSHOT_STATEMENT:
    case SNAPSHOT_SQL_STATEMENT:
        note(move, MOVE_HELD_STATEMENT, name);
        break;
    }
}

void move_note_holds(struct move *move)
{
    strbuf_clear(&move->holds);
    memset(move->held, 0, sizeof move->held);
    move->was_asked = true;
    for (size_t i = 0; i < move->own->count; i++) {
        note_item(move, &move->own->items[i]);
    }
}

const char *move_holds(const struct move *move, uint32_t counts[MOVE_HELD_COUNT])
{
    memcpy(counts, move->held, sizeof move->held);
    return move->was_asked ? strbuf_text(&move->holds) : NULL;
}
