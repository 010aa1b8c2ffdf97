#include "proxy/in_doubt.h"

#include "conf/base/clock.h"
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "proxy/answer.h"
#include "proxy/session.h"
#include "proxy/wire/scan.h"
#include "proxy/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* from which the statistics' beginning is at hand; before, a server reads a file for it */
    TOLD_FROM_VERSION = 15,
    REPLIES_SIZE = 64
};

static const char gone[] = "the server closed the connection unexpectedly";

/* --- what is asked beforehand --- */

static void ignore_name(void *context, const char *name)
{
    (void)context;
    (void)name;
}

/* Startup parameters set things, too: synchronous_commit by name, or in the command line of `options`. */
static bool starts_unsync(const struct session_startup *startup)
{
    const char *at = startup->parameters, *end = at + startup->length;
    while (at != NULL && at < end) {
        const char *value = at + strlen(at) + 1;
        const char *found = strcmp(at, "synchronous_commit") == 0
                                ? at
                                : strstr(strcmp(at, "options") == 0 ? value : "", "synchronous_commit");
        if (found != NULL) {
            struct scan scan;
            scan_begin(&scan, ignore_name, NULL);
            scan_text(&scan, slice_text("set synchronous_commit = "));
            scan_text(&scan, slice_text(found == at ? value : found + strlen("synchronous_commit")));
            return (scan_end(&scan) & SCAN_UNSYNC) != 0;
        }
        at = value + strlen(value) + 1;
    }
    return false;
}

void in_doubt_begin(struct session *session)
{
    doubt_begin(&session->doubt);
    if (!session->unsync_known) {
        session->unsync_known = true;
        session->starts_unsync = starts_unsync(&session->startup);
    }
}

static bool tells_statistics(const struct session *session)
{
    const char *version = move_reported(session->move, "server_version");
    return version != NULL && strtoul(version, NULL, 10) >= TOLD_FROM_VERSION;
}

const char *in_doubt_ask(struct session *session, const struct frame_piece *piece, const char *from,
                         char *start, size_t room)
{
    enum doubt_question question = doubt_question(&session->doubt, &session->boundary, piece);
    if (question == DOUBT_QUESTION_NONE || session->startup.replication) {
        return from;
    }
    uint8_t packet[DOUBT_QUESTION_SIZE];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    unsigned calls = doubt_ask(&session->doubt, question, tells_statistics(session), &build);
    ENSURE(build_fits(&build));
    boundary_aside(&session->boundary, calls);
    if (start == from && build.length <= room) {
        /* before what was read: one write for both */
        return memcpy(start - build.length, packet, build.length);
    }
    if (start > from) {
        link_write(session->link, from, (size_t)(start - from));
    }
    link_write(session->link, packet, build.length);
    return start;
}

void in_doubt_answered(struct session *session, const struct frame_piece *piece,
                       const struct boundary_step *step)
{
    bool was_known = session->doubt.may_ask;
    doubt_answered(&session->doubt, piece, step);
    if (piece->type == 'E' && piece->last && !was_known) {
        LOG_INFO("commits_stay_in_doubt", LOG_U64("session", session->id),
                 LOG_STR("user", session->startup.user), LOG_STR("sqlstate", step->sqlstate));
    }
}

/* --- what passes --- */

static bool is_unsync(const struct session *session)
{
    return session->starts_unsync || move_is_unsync(session->move);
}

/* A reply is complete. */
static void on_ready(struct session *session, const struct boundary_step *step)
{
    struct statistics *statistics = &session->worker->statistics;
    const struct boundary *boundary = &session->boundary;
    if (is_unsync(session) && step->statements > 0 && !step->failed && !boundary_in_transaction(boundary)) {
        counter_add(&statistics->unsync_commits, 1);
    }
    if (!boundary_owes(boundary)) {
        move_settled(session->move, boundary_in_transaction(boundary));
    }
    if (is_unsync(session) != session->unsync) {
        session->unsync = !session->unsync;
        counter_add(&statistics->sessions_unsync, session->unsync ? 1 : (uint64_t)-1);
    }
}

static enum doubt_stake stake_of(const struct session *session)
{
    const char *strings = move_reported(session->move, "standard_conforming_strings");
    bool unread = strings != NULL && strcmp(strings, "off") == 0; /* texts aren't what we take them for */
    return doubt_stake(&session->doubt, &session->boundary, unread || move_may_end(session->move));
}

/* A PANIC says nothing of what happened to the commit, and would be taken for its failure. */
static bool is_hidden(const struct session *session, const struct frame_piece *piece,
                      const struct boundary_step *step)
{
    return step->panic && piece->first && stake_of(session) >= DOUBT_UNKNOWN;
}

bool in_doubt_server(struct session *session, const struct frame_piece *piece,
                     const struct boundary_step *step, struct slice *instead)
{
    struct doubt *doubt = &session->doubt;
    if (piece->type == 'N') {
        if (doubt_notice(doubt, piece)) {
            counter_add(&session->worker->statistics.unconfirmed_commits, 1);
        }
        return false;
    }
    if (piece->type == 'E' && is_hidden(session, piece, step)) {
        *instead = slice_of("", 0);
        session->panicked = true;
        return true;
    }
    bool replaced = doubt_replaces(doubt, piece, instead);
    doubt_server(doubt, &session->boundary, piece, step);
    if (step->kind == BOUNDARY_READY) {
        on_ready(session, step);
    }
    return replaced;
}

/* --- the end --- */

/* What a session waits for that has no server any more. */
struct in_doubt {
    char sqlstate[6]; /* if the transaction is found to be over */
    char reason[PROXY_REASON_SIZE];
};

static void end(struct session *session, const struct in_doubt *why, enum proxy_outcome outcome)
{
    char message[PROXY_REASON_SIZE + 128];
    const char *rest = outcome == PROXY_OUTCOME_COMMITTED ? "after the COMMIT"
                       : outcome == PROXY_OUTCOME_ABORTED
                           ? "the transaction was rolled back"
                           : "whether the transaction was committed is unknown";
    counter_add(&session->worker->statistics.doubts[outcome], 1);
    (void)snprintf(message, sizeof(message), "%s: %s", why->reason, rest);
    bool unknown = outcome == PROXY_OUTCOME_UNKNOWN;
    session_end(session, unknown ? "08007" : why->sqlstate, message,
                unknown ? "Look for what it has changed before you repeat it." : NULL);
}

static void tell_commit(struct session *session)
{
    uint8_t packet[REPLIES_SIZE];
    struct build build;
    build_init(&build, packet, sizeof(packet));
    doubt_build_replies(&session->doubt, &build);
    ENSURE(build_fits(&build));
    if (!stream_write(&session->client, packet, build.length)) {
        session_drop(session);
    }
}

void in_doubt_settle(struct session *session, enum proxy_outcome outcome)
{
    struct in_doubt why = *session->in_doubt;
    free(session->in_doubt);
    session->in_doubt = NULL;
    LOG_INFO("commit_in_doubt", LOG_U64("session", session->id), LOG_STR("user", session->startup.user),
             LOG_U64("transaction", session->doubt.transaction),
             LOG_STR("outcome", proxy_outcome_name(outcome)));
    session->finishing = false; /* for the last words */
    if (outcome == PROXY_OUTCOME_COMMITTED) {
        tell_commit(session);
    }
    if (outcome == PROXY_OUTCOME_COMMITTED && session->doubt.more) {
        outcome = PROXY_OUTCOME_UNKNOWN; /* what came behind it */
    }
    if (!session->closing) {
        end(session, &why, outcome);
    }
}

void in_doubt_outcome(struct worker *worker, uint64_t request, enum proxy_outcome outcome)
{
    uint32_t ticket = (uint32_t)request;
    struct session *session = NULL;
    HASH_FIND(by_ticket, worker->tickets, &ticket, sizeof(ticket), session);
    if (session != NULL && session_request(session) == request && session->in_doubt != NULL) {
        in_doubt_settle(session, outcome);
    }
}

static void ask_controller(struct session *session, const struct server_link *link)
{
    struct worker *worker = session->worker;
    struct doubt_request *request = calloc(1, sizeof(*request));
    ENSURE(request != NULL);
    request->letter.deliver = proxy_deliver_doubt;
    request->doubt = (struct proxy_doubt){.request = session_request(session),
                                          .side = link->side,
                                          .epoch = link->epoch,
                                          .transaction = session->doubt.transaction,
                                          .incarnation = session->doubt.incarnation};
    mailbox_post(&worker->shared->main, &request->letter);
}

static bool is_told_by_end(const char *sqlstate)
{
    return strcmp(sqlstate, "57P01") != 0 && strcmp(sqlstate, "57P03") != 0 && strcmp(sqlstate, "08006") != 0;
}

bool in_doubt_ends(struct session *session, const char *sqlstate, const char *reason)
{
    struct server_link *link = session->link;
    struct worker *worker = session->worker;
    if (!session->established || link == NULL || session->fatal || is_told_by_end(sqlstate) ||
        session->startup.replication) {
        return false;
    }
    enum doubt_stake stake = stake_of(session);
    if (stake < DOUBT_UNKNOWN) {
        return false;
    }
    struct in_doubt why;
    memcpy(why.sqlstate, sqlstate, sizeof(why.sqlstate));
    (void)snprintf(why.reason, sizeof(why.reason), "%s", reason);
    int64_t wait_us = worker->config->timeouts.in_doubt_us;
    bool can_ask =
        stake == DOUBT_COMMIT && wait_us > 0 && !worker->stopping && !session_shows_half(session, link);
    session->in_doubt = can_ask ? malloc(sizeof(*session->in_doubt)) : NULL;
    if (session->in_doubt == NULL) {
        end(session, &why, PROXY_OUTCOME_UNKNOWN);
        return true;
    }
    *session->in_doubt = why;
    ask_controller(session, link);
    session_wait(session, clock_mono_us() + wait_us);
    return true;
}

void in_doubt_server_gone(struct session *session)
{
    char message[PROXY_REASON_SIZE];
    bool open = stake_of(session) == DOUBT_ROLLED_BACK;
    (void)snprintf(message, sizeof(message), "%s%s", gone, open ? ": the transaction was rolled back" : "");
    session_end(session, "08006", message, NULL);
}
