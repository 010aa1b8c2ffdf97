/* control/daemon: the ring of events, its subscribers, and what is put back of the time before. */
#include "control/daemon/events.h"

#include "conf/base/log.h"
#include "control/daemon/events_history.h"
#include "control/flip/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct reader {
    struct events *events;
    struct events_subscriber *subscriber;
    uint64_t last_seq;
    size_t count;
    size_t leaves_after; /* 0: never */
    char text[2048];
};

static void read_event(void *context, const struct event *event)
{
    struct reader *reader = context;
    assert_true(reader->last_seq == 0 || event->seq == reader->last_seq + 1);
    reader->last_seq = event->seq;
    reader->count++;
    size_t used = strlen(reader->text);
    (void)snprintf(reader->text + used, sizeof(reader->text) - used, "%s/%s/%s\n", event->type, event->phase,
                   event->message);
    if (reader->count == reader->leaves_after) {
        events_unsubscribe(reader->events, reader->subscriber);
    }
}

static void the_ring_keeps_the_newest(void **state)
{
    (void)state;
    struct error error;
    struct events *events = events_new(&error);
    struct reader reader = {0}, rest = {0};
    for (int i = 0; i < EVENTS_KEPT * 3; i++) {
        events_publish(events, LOG_LEVEL_DEBUG, "test", 0, NULL, "%d", i);
    }
    events_each(events, 0, read_event, &reader);
    assert_int_equal(reader.count, EVENTS_KEPT);
    assert_int_equal(reader.last_seq, events_last_seq(events));
    events_each(events, events_last_seq(events) - 2, read_event, &rest);
    assert_int_equal(rest.count, 2);
    events_each(events, events_last_seq(events) + 100, read_event, &rest);
    assert_int_equal(rest.count, 2);
    events_free(events);
}

static void subscribers_may_leave_while_they_are_told(void **state)
{
    (void)state;
    struct error error;
    struct events *events = events_new(&error);
    struct reader readers[3] = {
        {.events = events}, {.events = events, .leaves_after = 2}, {.events = events}};
    for (size_t i = 0; i < ARRAY_LENGTH(readers); i++) {
        readers[i].subscriber = events_subscribe(events, read_event, &readers[i]);
    }
    for (int i = 0; i < 5; i++) {
        events_publish(events, LOG_LEVEL_DEBUG, "test", 0, NULL, "%d", i);
    }
    assert_int_equal(readers[0].count, 5);
    assert_int_equal(readers[1].count, 2);
    assert_int_equal(readers[2].count, 5);
    events_unsubscribe(events, readers[0].subscriber);
    events_free(events);
}

static void too_long_a_message_is_cut(void **state)
{
    (void)state;
    struct error error;
    struct events *events = events_new(&error);
    char text[4096];
    struct reader reader = {0};
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    events_publish(events, LOG_LEVEL_DEBUG, text, 0, text, "%s", text);
    events_each(events, 0, read_event, &reader);
    assert_int_equal(strlen(reader.text),
                     EVENT_WORD_SIZE - 1 + EVENT_WORD_SIZE - 1 + EVENT_MESSAGE_SIZE - 1 + 3);
    events_free(events);
}

static void write_row(struct journal *journal, const struct record *row)
{
    char line[RECORD_LINE_SIZE];
    record_encode(row, line);
    journal_append(journal, row->flip, record_kind_name(row->kind), "", line, NULL, NULL);
}

static char directory[] = "/tmp/switchback-events-XXXXXX";

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) == NULL;
}

static int remove_directory(void **state)
{
    static const char *const names[] = {"switchback.db", "switchback.db-wal", "switchback.db-shm", "lock"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        (void)unlink(path);
    }
    return rmdir(directory);
}

static void the_journals_flips_are_put_back(void **state)
{
    (void)state;
    struct error error;
    uv_loop_t loop;
    assert_int_equal(uv_loop_init(&loop), 0);
    struct store *store = store_open(&loop, directory, &error);
    struct journal *journal = journal_new(store, &error);
    write_row(journal, &(struct record){.kind = RECORD_STEADY, .side = SIDE_BLUE, .epoch = 1});
    write_row(
        journal,
        &(struct record){
            .kind = RECORD_BEGIN, .flip = 1, .flip_kind = FLIP_KIND_CUTOVER, .side = SIDE_BLUE, .epoch = 1});
    journal_append(journal, 1, "noise", "", "not a record", NULL, NULL);
    write_row(journal, &(struct record){.kind = RECORD_END,
                                        .flip = 1,
                                        .side = SIDE_BLUE,
                                        .epoch = 1,
                                        .outcome = FLIP_OUTCOME_ABORTED,
                                        .code = ERROR_DRAIN_TIMEOUT,
                                        .text = "3 sessions did not drain"});
    journal_free(journal);
    store_close(store, NULL, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);

    store = store_open(&loop, directory, &error);
    journal = journal_new(store, &error);
    struct events *events = events_new(&error);
    struct reader reader = {0};
    assert_true(events_restore(events, journal, &error));
    events_publish(events, LOG_LEVEL_DEBUG, "start", 0, NULL, "now");
    events_each(events, 0, read_event, &reader);
    assert_string_equal(reader.text, "flip//cutover from blue began\n"
                                     "flip//aborted, blue is active: 3 sessions did not drain\n"
                                     "start//now\n");
    events_free(events);
    journal_free(journal);
    store_close(store, NULL, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_ring_keeps_the_newest),
        cmocka_unit_test(subscribers_may_leave_while_they_are_told),
        cmocka_unit_test(too_long_a_message_is_cut),
        cmocka_unit_test_setup_teardown(the_journals_flips_are_put_back, make_directory, remove_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
