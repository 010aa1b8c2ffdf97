#include "conf/base/clock.h"
#include "conf/base/log.h"
#include "conf/hba/userlist.h"
#include "proxy/answer.h"
#include "proxy/login_internal.h"
#include "proxy/session.h"
#include "proxy/stream.h"
#include "proxy/tls_identity.h"
#include "proxy/wire/frame.h"
#include "proxy/worker.h"

#include <netdb.h>
#include <stdlib.h>

/* --- refusals --- */

static void refuse(struct session *session, const char *sqlstate, const char *message)
{
    counter_add(&session->worker->statistics.logins_failed, 1);
    session_end(session, sqlstate, message, NULL);
}

static void note_failure(struct session *session)
{
    const struct worker *worker = session->worker;
    if (failed_logins_note(&session->worker->shared->failed_logins, &worker->config->failed_logins,
                           &session->address, clock_mono_us())) {
        LOG_WARN(
            "logins_blocked", LOG_STR("client", session->peer),
            LOG_I64("failures", worker->config->failed_logins.max),
            LOG_STR("hint", "auth.failed_logins: more are refused without a look, until time has passed"));
    }
}

bool login_auth_is_blocked(struct session *session)
{
    struct worker *worker = session->worker;
    if (failed_logins_may_try(&worker->shared->failed_logins, &worker->config->failed_logins,
                              &session->address, clock_mono_us())) {
        return false;
    }
    counter_add(&worker->statistics.refused[PROXY_REFUSED_FAILED_LOGINS], 1);
    session_end(session, "28000", "too many failed logins from your address", "Try again later.");
    return true;
}

void login_auth_refuse(struct session *session)
{
    static const char *const words[] = {
        [HBA_TRUST] = "trust",  [HBA_REJECT] = "reject",    [HBA_SCRAM_SHA_256] = "password",
        [HBA_MD5] = "password", [HBA_CERT] = "certificate", [HBA_PEER] = "Peer"};
    enum hba_method method = session->login->demand->method;
    bool by_password = method == HBA_SCRAM_SHA_256 || method == HBA_MD5;
    char message[160];
    (void)snprintf(message, sizeof(message), "%s authentication failed for user \"%.64s\"", words[method],
                   session->startup.user);
    LOG_INFO("login_refused", LOG_U64("session", session->id), LOG_STR("user", session->startup.user),
             LOG_STR("client", session->peer), LOG_STR("method", hba_method_name(method)),
             LOG_STR("reason", by_password && !session->login->role.found
                                   ? "no such role, or it has no password, or one that has expired"
                                   : "what the client showed is not the role's"));
    note_failure(session);
    refuse(session, by_password ? "28P01" : "28000", message);
}

/* No rule holds, or one that rejects: says who came from where, as PostgreSQL does. */
static void refuse_by_rules(struct session *session, const char *what)
{
    const struct session_startup *startup = &session->startup;
    const union client_address *address = &session->address;
    char host[NI_MAXHOST] = "[local]", database[90] = "", message[400];
    bool local = address->any.sa_family == AF_UNIX;
    bool v6 = address->any.sa_family == AF_INET6;
    socklen_t length = v6 ? sizeof(address->v6) : sizeof(address->v4);
    if (!local && getnameinfo(&address->any, length, host, sizeof(host), NULL, 0, NI_NUMERICHOST) != 0) {
        (void)snprintf(host, sizeof(host), "?");
    }
    if (!startup->physical) {
        (void)snprintf(database, sizeof(database), ", database \"%.64s\"", startup->database);
    }
    (void)snprintf(message, sizeof(message), "%s %s from host \"%.64s\", user \"%.64s\"%s, %s", what,
                   startup->physical ? "replication connection" : "connection", host, startup->user, database,
                   stream_is_tls(&session->client) ? "SSL encryption" : "no encryption");
    refuse(session, "28000", message);
}

/* --- certificates --- */

static bool names_of_certificate_allow(const struct session *session, const struct tls_identity *identity)
{
    switch (session->login->demand->client_name) {
    case HBA_CLIENT_NAME_CN:
        return identity->common_name[0] != '\0' && login_auth_may_be(session, identity->common_name);
    case HBA_CLIENT_NAME_DN:
        return identity->subject[0] != '\0' && login_auth_may_be(session, identity->subject);
    case HBA_CLIENT_NAME_SAN:
        break;
    }
    for (size_t i = 0; i < identity->alternative_count; i++) {
        const char *name = identity->alternatives[i].text;
        if (name[0] != '\0' && login_auth_may_be(session, name)) {
            return true;
        }
    }
    return false;
}

static bool check_certificate_names(const struct session *session)
{
    struct tls_identity identity;
    if (tls_identity_of(&session->client, &identity) != TLS_IDENTITY_OK) {
        return false;
    }
    bool allowed = names_of_certificate_allow(session, &identity);
    if (!allowed) {
        LOG_INFO("certificate_names_another", LOG_U64("session", session->id),
                 LOG_STR("user", session->startup.user), LOG_STR("subject", identity.subject));
    }
    tls_identity_deinit(&identity);
    return allowed;
}

static bool has_certificate(const struct session *session)
{
    struct tls_identity identity;
    if (tls_identity_of(&session->client, &identity) != TLS_IDENTITY_OK) {
        return false;
    }
    tls_identity_deinit(&identity);
    return true;
}

void login_auth_succeed(struct session *session)
{
    const struct hba_demand *demand = session->login->demand;
    if (demand->certificate == HBA_CERTIFICATE_VERIFY_FULL && !check_certificate_names(session)) {
        login_auth_refuse(session);
        return;
    }
    LOG_DEBUG("authenticated", LOG_U64("session", session->id), LOG_STR("user", session->startup.user),
              LOG_STR("method", hba_method_name(demand->method)), LOG_STR("rules", demand->file),
              LOG_I64("line", demand->line));
    login_client_resume(session);
}

/* --- which rule holds --- */

static bool is_member(const void *context, const char *role)
{
    const struct client_login *login = context;
    const char *at = login->groups, *end = at + login->role.groups_length;
    while (at != NULL && at < end) {
        if (strcmp(at, role) == 0) {
            return true;
        }
        at += strlen(at) + 1;
    }
    return false;
}

static struct hba_client describe(const struct session *session)
{
    return (struct hba_client){.local = session->address.any.sa_family == AF_UNIX,
                               .address = &session->address.any,
                               .tls = stream_is_tls(&session->client),
                               .physical = session->startup.physical,
                               .user = session->startup.user,
                               .database = session->startup.database,
                               .is_member = is_member,
                               .context = session->login};
}

bool login_auth_may_be(const struct session *session, const char *name)
{
    const struct hba_client client = describe(session);
    return hba_may_be(session->login->hba, session->login->demand->map, name, &client);
}

static void ask_role(struct session *session);

static void begin_password(struct session *session)
{
    const struct client_login *login = session->login;
    char digits[MD5_DIGITS];
    if (!login->role_known) {
        ask_role(session);
        return;
    }
    bool md5 = login->role.found ? md5_verifier_parse(login->role.text, digits) : login->role.md5;
    explicit_bzero(digits, sizeof(digits));
    if (login->demand->method == HBA_MD5 && md5) {
        login_md5_begin(session);
    } else {
        login_sasl_begin(session);
    }
}

static void decide(struct session *session)
{
    struct client_login *login = session->login;
    const struct hba_client client = describe(session);
    login->demand = hba_match(login->hba, &client);
    if (login->demand == NULL) {
        refuse_by_rules(session, hba_has_file(login->hba) ? "no rule of the proxy's HBA file for"
                                                          : "auth.method cert of the proxy asks for TLS:");
        return;
    }
    if (login->demand->certificate != HBA_CERTIFICATE_ANY && !has_certificate(session)) {
        refuse(session, "28000", "connection requires a valid client certificate");
        return;
    }
    switch (login->demand->method) {
    case HBA_REJECT:
        refuse_by_rules(session, "the proxy's HBA file rejects");
        break;
    case HBA_TRUST:
    case HBA_CERT:
        login_auth_succeed(session);
        break;
    case HBA_PEER:
        login_peer_begin(session);
        break;
    case HBA_SCRAM_SHA_256:
    case HBA_MD5:
        begin_password(session);
        break;
    }
}

/* --- what is known of the role --- */

static void go_on(struct session *session)
{
    session->login->role_known = true;
    if (session->login->demand == NULL) {
        decide(session);
    } else {
        begin_password(session);
    }
}

/* The list of verifiers, if there is one, knows better than the active side. */
static void consult_userlist(struct session *session)
{
    const struct userlist *list = session->worker->config->userlist;
    struct proxy_verifier *role = &session->login->role;
    if (list == NULL) {
        return;
    }
    const char *verifier = userlist_find(list, session->startup.user);
    role->found = verifier != NULL && verifier[0] != '\0';
    role->md5 = userlist_is_md5(list);
    role->iterations = userlist_iterations(list);
    (void)snprintf(role->text, sizeof(role->text), "%s", role->found ? verifier : "");
}

/* Behind a gate that will open, on whichever side. */
static bool is_held(const struct worker *worker)
{
    return hold_gate_closed(worker) && !hold_is_refusing(worker);
}

static void wait_to_ask(struct session *session)
{
    session->login->asks_again = true;
    session->login->reaches_side = false;
    login_wait_for_route(session);
}

void login_auth_ask_again(struct session *session)
{
    session->login->asks_again = false;
    session->deadline_us = clock_mono_us() + session->worker->config->timeouts.login_us;
    worker_want_tick(session->worker);
    ask_role(session);
}

static void ask_role(struct session *session)
{
    struct worker *worker = session->worker;
    bool groups = session->login->demand == NULL;
    if (worker->config->userlist != NULL && !groups) {
        consult_userlist(session);
        go_on(session);
        return;
    }
    enum side side = worker->hold.route.side;
    if (is_held(worker) && !session->login->reaches_side && !side_health_may_try(worker, side)) {
        wait_to_ask(session); /* it is being left, perhaps */
        return;
    }
    if (!login_may_reach_side(session)) {
        session->login->asks_again = login_client_waits(session);
        return;
    }
    size_t size = strlen(session->startup.user) + 1;
    struct verifier_request *request = calloc(1, sizeof(*request) + size);
    if (request == NULL) {
        session_end(session, "53200", "out of memory", NULL);
        return;
    }
    session->login->phase = PHASE_VERIFIER;
    request->letter.deliver = proxy_deliver_verifier_request;
    request->request = session_request(session);
    request->side = session->login->asked = side;
    request->groups = groups;
    memcpy(request->role, session->startup.user, size);
    mailbox_post(&worker->shared->main, &request->letter);
}

static bool keep_role(struct client_login *login, const struct proxy_verifier *role)
{
    login->role = *role;
    login->groups = role->groups_length == 0 ? NULL : malloc(role->groups_length);
    login->role.groups = login->groups;
    if (role->groups_length > 0 && login->groups == NULL) {
        return false;
    }
    if (role->groups_length > 0) {
        memcpy(login->groups, role->groups, role->groups_length);
    }
    return true;
}

void login_client_verifier(struct worker *worker, uint64_t request, const struct proxy_verifier *role)
{
    uint32_t ticket = (uint32_t)request;
    struct session *session = NULL;
    HASH_FIND(by_ticket, worker->tickets, &ticket, sizeof(ticket), session);
    /* another one may have the ticket by now, and ask to be somebody else */
    if (session == NULL || session_request(session) != request || !login_is_in(session, PHASE_VERIFIER)) {
        return;
    }
    if (role->unavailable && !role->refused &&
        (is_held(worker) || session->login->asked != worker->hold.route.side)) {
        /* it was asked of a side that traffic leaves, or has left */
        if (is_held(worker)) {
            wait_to_ask(session);
        } else {
            login_auth_ask_again(session);
        }
        return;
    }
    if (role->unavailable) {
        if (!role->refused) { /* an error that a strange name may bring about must not take the side from all
                               */
            side_health_failed(worker, worker->hold.route.side, "it could not be asked for a role");
        }
        if (!role->refused && login_awaits_side(session)) {
            session->login->asks_again = true;
            return;
        }
        counter_add(&worker->statistics.logins_failed, 1);
        session_end(session, "57P03", "the active side can't be asked for the role now", NULL);
        return;
    }
    if (!keep_role(session->login, role)) {
        session_end(session, "53200", "out of memory", NULL);
        return;
    }
    consult_userlist(session);
    go_on(session);
    login_auth_take(session); /* a client may have answered before it was asked */
    session_update_reading(session);
}

/* --- begin, and messages of the client --- */

void login_auth_begin(struct session *session)
{
    const struct proxy_config *config = session->worker->config;
    if (login_auth_is_blocked(session)) {
        return;
    }
    session->login->hba = hba_ref(config->hba);
    if (config->hba_groups) {
        ask_role(session);
    } else {
        decide(session);
    }
}

bool login_auth_waits(const struct session *session)
{
    switch (session->login->phase) {
    case PHASE_MD5:
    case PHASE_SASL_INITIAL:
    case PHASE_SASL_RESPONSE:
        return true;
    default:
        return false;
    }
}

/* One message, if it is whole. */
static bool take_one(struct session *session)
{
    struct client_login *login = session->login;
    struct slice rest = slice_of(login->buffer.data, login->buffer.length);
    struct frame_cursor cursor;
    struct frame_piece piece;
    frame_init(&cursor, FRAME_FROM_CLIENT);
    enum wire_answer answer = frame_next(&cursor, &rest, &piece);
    if (answer == WIRE_BAD || (answer == WIRE_OK && (piece.type != 'p' || piece.length > SASL_MESSAGE_MAX))) {
        session_end(session, "08P01",
                    login->phase == PHASE_MD5 ? "expected password response" : "expected SASL response",
                    NULL);
        return false;
    }
    if (answer == WIRE_PARTIAL || !piece.last) {
        return false;
    }
    size_t used = FRAME_HEADER_SIZE + piece.length;
    if (login->phase == PHASE_MD5) {
        login_md5_take(session, piece.bytes);
    } else {
        login_sasl_take(session, piece.bytes);
    }
    if (session->login != NULL) {
        login_consume(session->login, used);
    }
    return true;
}

void login_auth_take(struct session *session)
{
    while (!login_is_over(session) && login_auth_waits(session) && take_one(session)) {
    }
}
