/* The storm's clients: each comes, asks, reads at its own pace, leaves in one of many ways, and comes again.
 */
#ifndef SWITCHBACK_TESTS_UNIT_STORM_CLIENT_H
#define SWITCHBACK_TESTS_UNIT_STORM_CLIENT_H

#include "tests/unit/storm.h"

#include <sys/un.h>

enum { CLIENT_PIPELINE = 6, CLIENT_FILLER = 200000, CLIENT_ANSWER = 400000, CLIENT_ERROR = 600 };

enum client_end { END_STAYS, END_TERMINATE, END_CLOSE, END_HALF, END_RESET, END_COUNT };

struct storm_client {
    struct storm *storm;
    unsigned seed, next_id;
    int fd;
    uint8_t key[8];
    /* what is to be sent, and what of it was */
    char *out;
    size_t out_length, out_sent, out_capacity;
    /* what is to be answered */
    struct storm_query asked[CLIENT_PIPELINE];
    unsigned asked_count, answered;
    /* the message at hand */
    uint8_t header[5];
    size_t header_have, left;
    size_t at;                /* of the rows of the first query that isn't answered */
    char error[CLIENT_ERROR]; /* the body of an ErrorResponse */
    size_t error_have;
    bool greeted, complete, failed; /* the query at hand has its CommandComplete, or its error */
    bool fatal;                     /* a FATAL was read: the end may follow */
    bool cancels;                   /* it has asked for a cancel; that may come late */
    enum client_end end;
};

static inline bool client_may_fail(const struct storm_client *client)
{
    return atomic_load(&client->storm->stopped) || atomic_load(&client->storm->rough);
}

/* Its server dies of something that it has asked, and what was answered before may go with it. */
static inline bool client_asked_for_it(const struct storm_client *client)
{
    for (unsigned i = client->answered; i < client->asked_count; i++) {
        if (client->asked[i].deed != DEED_NOTHING) {
            return true;
        }
    }
    return false;
}

/* --- what is sent --- */

static inline void client_add(struct storm_client *client, const void *bytes, size_t length)
{
    if (client->out_length + length > client->out_capacity) {
        client->out_capacity = 2 * (client->out_length + length);
        client->out = realloc(client->out, client->out_capacity);
        if (client->out == NULL) {
            storm_fail("client", "out of memory", client->out_capacity);
        }
    }
    memcpy(client->out + client->out_length, bytes, length);
    client->out_length += length;
}

static inline void client_add_message(struct storm_client *client, char type, const void *body, size_t length)
{
    const uint32_t size = htonl((uint32_t)length + 4);
    client_add(client, &type, 1);
    client_add(client, &size, 4);
    client_add(client, body, length);
}

static inline void client_ask(struct storm_client *client)
{
    unsigned *seed = &client->seed;
    struct storm_query query = {.id = ++client->next_id, .extended = storm_pick(seed, 2) == 0};
    query.bytes = storm_pick(seed, 4) == 0 ? storm_pick(seed, CLIENT_ANSWER) : storm_pick(seed, 200);
    query.filler = storm_pick(seed, 6) == 0 ? storm_pick(seed, CLIENT_FILLER) : storm_pick(seed, 100);
    query.pause_ms = storm_pick(seed, 5) == 0 ? storm_pick(seed, 30) : 0;
    query.deed = storm_pick(seed, 30) == 0 ? (enum storm_deed)storm_pick(seed, DEED_COUNT) : DEED_NOTHING;
    query.deed = query.bytes > 1000 ? query.deed : DEED_NOTHING;
    const size_t length = STORM_TEXT + query.filler;
    char *body = calloc(1, length + 4);
    if (body == NULL) {
        storm_fail("client", "out of memory", length);
    }
    char *text = query.extended ? body + 1 : body;
    (void)snprintf(text, STORM_TEXT, "%u %u %u %u %u ", query.id, query.bytes, query.pause_ms,
                   (unsigned)query.deed, query.filler);
    memset(text + strlen(text), ' ', STORM_TEXT - strlen(text));
    for (size_t i = STORM_TEXT; i < length; i++) {
        text[i] = storm_byte(query.id, i);
    }
    if (query.extended) {
        client_add_message(client, 'P', body, length + 4);
        client_add(client, BYTES("B\0\0\0\x0c\0\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"));
    } else {
        client_add_message(client, 'Q', body, length + 1);
    }
    free(body);
    client->asked[client->asked_count++] = query;
}

/* --- what is read --- */

static inline void client_error_read(struct storm_client *client)
{
    const char *sqlstate = "";
    bool fatal = false;
    client->error[client->error_have] = '\0';
    for (const char *field = client->error; *field != '\0'; field += strlen(field) + 1) {
        sqlstate = *field == 'C' ? field + 1 : sqlstate;
        fatal = fatal || (*field == 'V' && strcmp(field + 1, "FATAL") == 0);
    }
    bool expected = client_may_fail(client) || (strcmp(sqlstate, "57014") == 0 && client->cancels) ||
                    client_asked_for_it(client);
    if (!expected) {
        for (size_t i = 0; i + 1 < client->error_have; i++) { /* all fields as one text */
            client->error[i] = client->error[i] == '\0' ? ' ' : client->error[i];
        }
        storm_fail("client", client->error, client->answered);
    }
    client->fatal = client->fatal || fatal;
    client->failed = true;
}

static inline void client_message_read(struct storm_client *client)
{
    const struct storm_query *query = &client->asked[client->answered];
    switch ((char)client->header[0]) {
    case 'E':
        client_error_read(client);
        break;
    case 'C':
        if (client->answered == client->asked_count || client->at != query->bytes) {
            storm_fail("client", "an answer has too few bytes", client->at);
        }
        client->complete = true;
        break;
    case 'Z':
        if (!client->greeted) {
            client->greeted = true;
            break;
        }
        if (client->answered == client->asked_count || !(client->complete || client->failed)) {
            storm_fail("client", "an answer is not complete", client->answered);
        }
        client->answered++;
        client->at = 0;
        client->complete = client->failed = false;
        atomic_fetch_add(&client->storm->answered, 1);
        break;
    default:
        break;
    }
    client->error_have = 0;
}

static inline void client_body(struct storm_client *client, const char *bytes, size_t length, size_t offset)
{
    const char type = (char)client->header[0];
    if (type == 'D') {
        if (client->answered == client->asked_count) {
            storm_fail("client", "rows came that nobody asked for", length);
        }
        for (size_t i = 0; i < length; i++) {
            if (offset + i >= 6 && bytes[i] != storm_byte(client->asked[client->answered].id, client->at++)) {
                storm_fail("client", "a row has wrong bytes", client->at);
            }
        }
    } else if (type == 'E' || type == 'K') {
        for (size_t i = 0; i < length && client->error_have < CLIENT_ERROR - 2; i++) {
            client->error[client->error_have++] = bytes[i];
        }
        if (type == 'K' && client->error_have == sizeof(client->key)) {
            memcpy(client->key, client->error, sizeof(client->key));
        }
    }
}

static inline void client_read_bytes(struct storm_client *client, const char *bytes, size_t length)
{
    while (length > 0 || (client->header_have == 5 && client->left == 0)) {
        if (client->header_have < 5) {
            client->header[client->header_have++] = (uint8_t)*bytes++;
            length--;
            const uint8_t *h = client->header;
            client->left = ((size_t)h[1] << 24 | (size_t)h[2] << 16 | (size_t)h[3] << 8 | h[4]) - 4;
            continue;
        }
        const uint8_t *h = client->header;
        size_t whole = ((size_t)h[1] << 24 | (size_t)h[2] << 16 | (size_t)h[3] << 8 | h[4]) - 4;
        size_t piece = length < client->left ? length : client->left;
        client_body(client, bytes, piece, whole - client->left);
        client->left -= piece;
        bytes += piece;
        length -= piece;
        if (client->left == 0) {
            client->header_have = 0;
            client_message_read(client);
        }
    }
}

/* False: the end. */
static inline bool client_receive(struct storm_client *client)
{
    char bytes[65536];
    size_t size = storm_pick(&client->seed, 3) == 0 ? 1 + storm_pick(&client->seed, 3000) : sizeof(bytes);
    ssize_t count = recv(client->fd, bytes, size, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    if (count > 0) {
        client_read_bytes(client, bytes, (size_t)count);
        return true;
    }
    bool expected = client->fatal || client_may_fail(client) || client_asked_for_it(client) ||
                    (client->end == END_HALF && client->answered == client->asked_count);
    if (!expected) {
        (void)fprintf(stderr, "greeted %d, %u of %u answered, %zu bytes of it, %zu of %zu sent, end %d\n",
                      client->greeted, client->answered, client->asked_count, client->at, client->out_sent,
                      client->out_length, (int)client->end);
        storm_fail("client", count < 0 ? strerror(errno) : "the end came too early", client->answered);
    }
    atomic_fetch_add(&client->storm->cut, client->answered < client->asked_count);
    return false;
}

static inline bool client_send(struct storm_client *client)
{
    size_t size = client->out_length - client->out_sent;
    size =
        storm_pick(&client->seed, 3) == 0 && size > 1 ? 1 + storm_pick(&client->seed, (unsigned)size) : size;
    ssize_t count = send(client->fd, client->out + client->out_sent, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    client->out_sent += count > 0 ? (size_t)count : 0;
    return count > 0 || errno == EAGAIN || errno == EINTR;
}

#endif
