/* Making the target link stand where the session's own server stands: the differences, as messages. */
#include "proxy/move_internal.h"

#include "proxy/wire/decode.h"

#include <stdio.h>
#include <stdlib.h>

/*
 * One step of a replay, for its error message. All of a replay is one implicit transaction, so the first
 * error is the only one; it belongs to the step that the number of answers before it points at.
 */
struct move_step {
    const char *what, *name; /* name lies in a snapshot */
    size_t answers;          /* ParseComplete, BindComplete, CommandComplete, CloseComplete up to its end */
};

/* Builds the messages of a replay; without steps it only counts. */
struct replay {
    struct build *build;
    const struct move_numbers *numbers;
    struct move_step *steps;
    size_t count, answers;
};

#define STATEMENT INTERROGATE_PREFIX "set"
#define COMMAND   INTERROGATE_PREFIX "run"

#define STEP_STATEMENT "statement"

enum { TEXT_OID = 25, OIDS_MAX = 65535 };

static void step(struct replay *replay, const char *what, const char *name, size_t answers)
{
    replay->answers += answers;
    if (replay->steps != NULL) {
        replay->steps[replay->count] =
            (struct move_step){.what = what, .name = name, .answers = replay->answers};
    }
    replay->count++;
}

static void set(struct replay *replay, const char *name, const char *value)
{
    struct slice parameters[2] = {slice_text(name), slice_text(value)};
    build_bind(replay->build, slice_text(STATEMENT), slice_text(STATEMENT), parameters, 2);
    build_execute(replay->build, slice_text(STATEMENT), 0);
    build_close(replay->build, 'P', slice_text(STATEMENT));
    step(replay, "setting", name, 3);
}

/* A command that takes no parameters. */
static void run(struct replay *replay, const char *what, const char *name, const char *sql)
{
    struct slice command = slice_text(COMMAND);
    build_parse(replay->build, command, slice_text(sql), NULL, 0);
    build_bind(replay->build, command, command, NULL, 0);
    build_execute(replay->build, command, 0);
    build_close(replay->build, 'P', command);
    build_close(replay->build, 'S', command);
    step(replay, what, name, 5);
}

/* `VERB "name"`, each part of a dotted name quoted by itself if dots separate parts. */
static void run_with_name(struct replay *replay, const char *what, const char *verb, const char *name,
                          bool dotted)
{
    char sql[4 * SCAN_NAME_SIZE];
    size_t length = (size_t)snprintf(sql, sizeof sql, "%s \"", verb);
    for (const char *c = name; *c != '\0' && length + 4 < sizeof sql; c++) {
        if (dotted && *c == '.') {
            memcpy(sql + length, "\".\"", 3);
            length += 3;
        } else {
            sql[length++] = *c;
            if (*c == '"') {
                sql[length++] = '"';
            }
        }
    }
    sql[length++] = '"';
    sql[length] = '\0';
    run(replay, what, name, sql);
}

/* The oids that the target gives in a statement's description are its own, as its client will see them. */
static void describe(struct replay *replay, const char *name, const char *text)
{
    if (replay->numbers->numbering != NULL) {
        build_describe(replay->build, 'S', slice_text(name));
        if (replay->steps != NULL) {
            numbering_prepared(replay->numbers->numbering, name, text);
        }
    }
}

static void prepare(struct replay *replay, const struct snapshot_change *change)
{
    struct build *build = replay->build;
    struct slice name = slice_text(change->name);
    uint16_t count = 0;
    for (const char *c = change->extra; *c != '\0'; c++) {
        bool ends = *c >= '0' && *c <= '9' && (c[1] == ',' || c[1] == '}');
        count = (uint16_t)(count + (ends && count < OIDS_MAX ? 1 : 0));
    }
    build_begin(build, 'P');
    build_text(build, name);
    build_string(build, change->value);
    build_u16(build, count);
    const char *c = change->extra;
    for (uint16_t i = 0; i < count; i++) {
        char *end = NULL;
        c += strcspn(c, "0123456789");
        build_u32(build, translate(replay->numbers->statements, (uint32_t)strtoul(c, &end, 10)));
        c = end;
    }
    build_end(build);
    step(replay, STEP_STATEMENT, change->name, 1);
    describe(replay, change->name, change->value);
}

/* --- the order ---------------------------------------------------------------------------------------------
 */

/* What could hurt the replay itself comes late; what decides how its text is read comes first. */
enum rank { RANK_FIRST, RANK_ORDINARY, RANK_LATE };

static enum rank rank_of(const char *name)
{
    static const char *const late[] = {"statement_timeout",
                                       "lock_timeout",
                                       "transaction_timeout",
                                       "idle_in_transaction_session_timeout",
                                       "idle_session_timeout",
                                       "default_transaction_read_only",
                                       "default_transaction_isolation",
                                       "default_transaction_deferrable"};
    if (strcmp(name, "client_encoding") == 0) {
        return RANK_FIRST;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(late); i++) {
        if (strcmp(name, late[i]) == 0) {
            return RANK_LATE;
        }
    }
    return RANK_ORDINARY;
}

/* Settings that a server keeps by itself, whatever their source is said to be. */
static bool is_settable(const char *name)
{
    static const char *const kept[] = {"transaction_isolation",
                                       "transaction_read_only",
                                       "transaction_deferrable",
                                       "session_authorization",
                                       "role",
                                       "is_superuser",
                                       "in_hot_standby"};
    for (size_t i = 0; i < ARRAY_LENGTH(kept); i++) {
        if (strcmp(name, kept[i]) == 0) {
            return false;
        }
    }
    return true;
}

static bool is_setting(enum snapshot_kind kind)
{
    return kind == SNAPSHOT_SETTING || kind == SNAPSHOT_CUSTOM;
}

static void settings(struct replay *replay, const struct move *move, enum rank rank)
{
    struct snapshot_walk walk = {.old = move->target, .new = move->own};
    struct snapshot_change change;
    while (snapshot_next_change(&walk, &change)) {
        if (!is_setting(change.kind) || rank_of(change.name) != rank || !is_settable(change.name)) {
            continue;
        }
        if (change.value != NULL) {
            set(replay, change.name, change.value);
        } else if (change.kind == SNAPSHOT_SETTING) {
            run_with_name(replay, "resetting", "reset", change.name, true);
        }
    }
}

static void channels(struct replay *replay, const struct move *move)
{
    struct snapshot_walk walk = {.old = move->target, .new = move->own};
    struct snapshot_change change;
    while (snapshot_next_change(&walk, &change)) {
        if (change.kind == SNAPSHOT_CHANNEL) {
            run_with_name(replay, "channel", change.value != NULL ? "listen" : "unlisten", change.name,
                          false);
        }
    }
}

static bool is_statement(enum snapshot_kind kind)
{
    return kind == SNAPSHOT_STATEMENT || kind == SNAPSHOT_SQL_STATEMENT;
}

static void close_statement(struct replay *replay, const char *name)
{
    build_close(replay->build, 'S', slice_text(name));
    step(replay, "closing statement", name, 1);
}

/* Whatever goes, and, where it isn't known what stands there, whatever comes. */
static void close_statements(struct replay *replay, const struct move *move)
{
    struct snapshot_walk walk = {.old = move->target, .new = move->own};
    struct snapshot_change change;
    while (snapshot_next_change(&walk, &change)) {
        if (is_statement(change.kind) && change.old_value != NULL) {
            close_statement(replay, change.name);
        }
    }
    walk = (struct snapshot_walk){.new = move->own};
    while (move->target_unclean && snapshot_next_change(&walk, &change)) {
        if (is_statement(change.kind)) {
            close_statement(replay, change.name);
        }
    }
}

/* A name may pass from the protocol to SQL or back: all is closed before anything is prepared. */
static void statements(struct replay *replay, const struct move *move)
{
    close_statements(replay, move);
    struct snapshot_walk walk = {.old = move->target_unclean ? NULL : move->target, .new = move->own};
    struct snapshot_change change;
    while (snapshot_next_change(&walk, &change)) {
        if (change.value == NULL || !is_statement(change.kind)) {
            continue;
        }
        if (change.kind == SNAPSHOT_SQL_STATEMENT) {
            run(replay, "statement prepared by SQL", change.name, change.value);
            describe(replay, change.name, change.value);
        } else if (late_find(move->target_late, slice_text(change.name)) == NULL) {
            prepare(replay, &change);
        }
    }
}

/* Who the target link is now, by what it reported and by what was replayed to it. */
static const char *target_user(const struct move *move)
{
    const char *replayed = snapshot_find(move->target, SNAPSHOT_AUTHORIZATION, "session_authorization");
    return replayed != NULL ? replayed
                            : move_parameter_get(&move->target_parameters, "session_authorization");
}

static const char *target_role(const struct move *move)
{
    const char *replayed = snapshot_find(move->target, SNAPSHOT_AUTHORIZATION, "role");
    return replayed; /* NULL: whatever it has by default */
}

static bool settings_change(const struct move *move)
{
    struct snapshot_walk walk = {.old = move->target, .new = move->own};
    struct snapshot_change change;
    while (snapshot_next_change(&walk, &change)) {
        if (is_setting(change.kind)) {
            return true;
        }
    }
    return false;
}

/* Settings are set as who logged in; then the role is taken, under which statements were prepared. */
static void replay_build(struct replay *replay, const struct move *move)
{
    static const uint32_t types[2] = {TEXT_OID, TEXT_OID};
    const char *user = snapshot_find(move->own, SNAPSHOT_AUTHORIZATION, "session_authorization");
    const char *role = snapshot_find(move->own, SNAPSHOT_AUTHORIZATION, "role");
    const char *user_now = target_user(move);
    const char *role_now = target_role(move);
    if (move->target_unclean) { /* the replay that failed has left them */
        close_statement(replay, STATEMENT);
        close_statement(replay, COMMAND);
    }
    run(replay, "preparing", "", interrogate_aside_sql());
    build_parse(replay->build, slice_text(STATEMENT),
                slice_text("select pg_catalog.set_config($1, $2, false)"), types, 2);
    step(replay, "preparing", "", 1);
    if (settings_change(move)) {
        if (move->target != NULL) {
            run(replay, "session authorization", "default", "reset session authorization");
            user_now = NULL;
        }
        run(replay, "role", "none", "set role none");
        role_now = "none";
    }
    settings(replay, move, RANK_FIRST);
    settings(replay, move, RANK_ORDINARY);
    if (user != NULL && (user_now == NULL || strcmp(user, user_now) != 0)) {
        set(replay, "session_authorization", user);
        role_now = NULL; /* what becomes of it depends on the version */
    }
    if (role != NULL && (role_now == NULL || strcmp(role, role_now) != 0)) {
        set(replay, "role", role);
    }
    channels(replay, move);
    statements(replay, move);
    settings(replay, move, RANK_LATE);
    build_close(replay->build, 'S', slice_text(STATEMENT));
    step(replay, "closing", "", 1);
    build_sync(replay->build);
}

/* In an exchange of its own: if the target refuses the statement, its next use fails as it would have. */
static void replay_unnamed(struct replay *replay, const struct move *move)
{
    struct build *build = replay->build;
    struct decode_parse parse;
    struct slice body = slice_of(move->unnamed.body, move->unnamed.length);
    if (body.data != NULL && decode_parse(body, &parse)) {
        build_begin(build, 'P');
        build_bytes(build, body.data, (size_t)(parse.types.data - body.data));
        for (uint16_t i = 0; i < parse.type_count; i++) {
            build_u32(build, translate(replay->numbers->unnamed, decode_oid(parse.types, i)));
        }
        build_end(build);
        describe(replay, "", (const char *)parse.text.data);
    } else {
        build_close(build, 'S', slice_of("", 0));
    }
    build_sync(build);
}

/* --- the exchange ------------------------------------------------------------------------------------------
 */

void move_replay_forget(struct move *move)
{
    snapshot_unref(move->replaying);
    free(move->steps);
    move->replaying = NULL;
    move->steps = NULL;
    move->step_count = 0;
    move->answers = 0;
    move->syncs = 0;
    move->broken = false;
}

/* The statement that the target refused is left out, and comes when it is used. */
static bool make_late(struct move *move, const struct move_numbers *numbers)
{
    static const struct translation none = {.map = NULL};
    /* the client speaks the numbers of its own server, if it isn't away from home */
    bool home = numbers->statements.to == numbers->unnamed.from;
    for (size_t i = 0; i < move->own->count; i++) {
        const struct snapshot_item *item = &move->own->items[i];
        if (item->kind == SNAPSHOT_STATEMENT && strcmp(snapshot_name(move->own, item), move->refused) == 0) {
            move->late_count++;
            return late_add(&move->target_late, move->refused, snapshot_value(move->own, item),
                            snapshot_extra(move->own, item), home ? numbers->statements : none);
        }
    }
    return true;
}

/* What the target lacks is known before anything is built. */
static bool settle_late(struct move *move, const struct move_numbers *numbers)
{
    bool ok = move->refused == NULL || make_late(move, numbers);
    free(move->refused);
    move->refused = NULL;
    move_late_refresh(move);
    return ok;
}

static bool state_differs(const struct move *move)
{
    struct snapshot_walk walk = {.old = move->target, .new = move->own};
    struct snapshot_change change;
    if (move->target == NULL) {
        return move->own->count > 0;
    }
    return move->target != move->own && snapshot_next_change(&walk, &change);
}

static bool replay_append(struct move *move, const struct move_numbers *numbers, struct strbuf *out,
                          bool state, bool unnamed)
{
    struct build build;
    struct replay replay = {.build = &build, .numbers = numbers};
    uint8_t *bytes = NULL;
    for (int pass = 0; pass < 2; pass++) {
        build_init(&build, bytes, pass == 0 ? 0 : build.length);
        replay.count = 0;
        replay.answers = 0;
        if (state) {
            replay_build(&replay, move);
        }
        if (unnamed) {
            replay_unnamed(&replay, move);
        }
        if (pass == 0) {
            bytes = malloc(build.length);
            replay.steps = calloc(replay.count + 1, sizeof *replay.steps);
            if (bytes == NULL || replay.steps == NULL) {
                free(bytes);
                free(replay.steps);
                return false;
            }
        }
    }
    strbuf_append(out, bytes, build.length);
    free(bytes);
    move->steps = replay.steps;
    move->step_count = replay.count;
    return !out->failed;
}

bool move_replay(struct move *move, const struct move_numbers *numbers, struct strbuf *out)
{
    if (move->own == NULL) {
        return false;
    }
    bool unnamed = move->unnamed.id != move->target_unnamed;
    bool state = state_differs(move);
    move_replay_forget(move);
    if (!state && !unnamed) {
        snapshot_unref(move->target);
        move->target = snapshot_ref(move->own);
        return true;
    }
    if (!settle_late(move, numbers) || !replay_append(move, numbers, out, state, unnamed)) {
        move_fail(move, "out of memory");
        return false;
    }
    move->replaying = snapshot_ref(move->own);
    move->replaying_unnamed = move->unnamed.id;
    move->replaying_state = state;
    move->syncs = (uint8_t)((state ? 1 : 0) + (unnamed ? 1 : 0));
    return true;
}

/* Classes 42 and 3F say that a text doesn't fit what is there, 0A that it isn't supported. */
static bool is_about_text(const struct decode_error *error)
{
    const uint8_t *code = error->sqlstate.data;
    return error->sqlstate.length >= 2 && !slice_equals(error->sqlstate, "42P05") &&
           (memcmp(code, "42", 2) == 0 || memcmp(code, "3F", 2) == 0 || memcmp(code, "0A", 2) == 0);
}

static void replay_error(struct move *move, const struct decode_error *error)
{
    const char *what = "state";
    const char *name = "";
    for (size_t i = 0; i < move->step_count; i++) {
        if (move->answers < move->steps[i].answers) {
            what = move->steps[i].what;
            name = move->steps[i].name;
            break;
        }
    }
    move->broken = true;
    if (strcmp(what, STEP_STATEMENT) == 0 && is_about_text(error) && move->late_count < MOVE_LATE_MAX) {
        move->refused = strdup(name);
    }
    move_fail(move, "the target refuses %s %s: %.*s", what, name, (int)error->message.length,
              (const char *)error->message.data);
}

static enum move_answer replay_ready(struct move *move)
{
    if (move->syncs > 0) {
        move->syncs--;
    }
    move->replaying_state = false; /* what comes now is about the unnamed statement */
    if (move->syncs > 0) {
        return MOVE_MORE;
    }
    if (move->broken || move->replaying == NULL) {
        move->target_unclean = true;
        move->failure[0] = move->refused != NULL ? '\0' : move->failure[0];
        move_replay_forget(move);
        return move->refused != NULL ? MOVE_AGAIN : MOVE_FAILED;
    }
    snapshot_unref(move->target);
    move->target = move->replaying;
    move->replaying = NULL;
    move->target_unclean = false;
    move->target_unnamed = move->replaying_unnamed;
    move_replay_forget(move);
    return MOVE_DONE;
}

static enum move_answer replay_refused(struct move *move, struct slice body)
{
    struct decode_error error;
    decode_error(body, &error);
    if (decode_error_is_fatal(&error)) {
        move_fail(move, "the target ended its connection: %.*s", (int)error.message.length,
                  (const char *)error.message.data);
        return MOVE_FATAL;
    }
    if (move->replaying_state && !move->broken) {
        replay_error(move, &error);
    }
    return MOVE_MORE;
}

/* What the target says of the statement that it prepared last. */
static void replay_described(const struct move *move, struct numbering *numbering, uint8_t type,
                             struct slice body)
{
    const char *name = "";
    for (size_t i = 0; move->replaying_state && i < move->step_count; i++) {
        if (move->steps[i].answers > move->answers) {
            break;
        }
        name = move->steps[i].name;
    }
    if (numbering != NULL) {
        numbering_described(numbering, name, type, body);
    }
}

enum move_answer move_replay_answer(struct move *move, const struct frame_piece *piece,
                                    struct numbering *numbering)
{
    struct slice body;
    struct slice name;
    struct slice value;
    if (piece->type == 'D' || piece->type == 'A' || piece->type == 'N' || !move_body(move, piece, &body)) {
        return MOVE_MORE;
    }
    switch (piece->type) {
    case '1':
    case '2':
    case '3':
    case 'C':
        move->answers++;
        return MOVE_MORE;
    case 'S':
        if (decode_parameter_status(body, &name, &value)) {
            move_target_parameter(move, name, value);
        }
        return MOVE_MORE;
    case 't':
    case 'T':
        replay_described(move, numbering, piece->type, body);
        return MOVE_MORE;
    case 'E':
        return replay_refused(move, body);
    case 'Z':
        return move->syncs == 0 ? MOVE_MORE : replay_ready(move);
    default:
        return MOVE_MORE;
    }
}
