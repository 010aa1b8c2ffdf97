/*
 * A client's login by what the system says of it (peer): the user that owns the other end of the Unix socket.
 * Its name is looked up on a thread of the pool, as that may ask another machine.
 */
#include "conf/base/log.h"
#include "proxy/login_internal.h"
#include "proxy/session.h"
#include "proxy/worker.h"

#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { NAME_BUFFER = 16 * 1024 };

struct lookup {
    uv_work_t work;
    struct worker *worker;
    uint64_t request; /* of the session, which may be gone when the name is there */
    uid_t uid;
    int failure;
    bool found;
    char name[PROXY_NAME_SIZE];
};

static void look_up(uv_work_t *work)
{
    struct lookup *lookup = CONTAINER_OF(work, struct lookup, work);
    struct passwd entry, *found = NULL;
    char *buffer = malloc(NAME_BUFFER);
    if (buffer == NULL) {
        lookup->failure = ENOMEM;
        return;
    }
    lookup->failure = getpwuid_r(lookup->uid, &entry, buffer, NAME_BUFFER, &found);
    if (found != NULL && strlen(found->pw_name) < sizeof(lookup->name)) {
        lookup->found = true;
        (void)snprintf(lookup->name, sizeof(lookup->name), "%s", found->pw_name);
    }
    free(buffer);
}

static void judge(struct session *session, const struct lookup *lookup)
{
    if (lookup->found && login_auth_may_be(session, lookup->name)) {
        login_auth_succeed(session);
        return;
    }
    LOG_INFO("peer_is_another", LOG_U64("session", session->id), LOG_I64("uid", lookup->uid),
             LOG_STR("name", lookup->found ? lookup->name : NULL),
             LOG_STR("error", lookup->failure != 0 ? strerror(lookup->failure) : NULL));
    login_auth_refuse(session);
}

static void on_looked_up(uv_work_t *work, int status)
{
    struct lookup *lookup = CONTAINER_OF(work, struct lookup, work);
    struct session *session = NULL;
    uint32_t ticket = (uint32_t)lookup->request;
    HASH_FIND(by_ticket, lookup->worker->tickets, &ticket, sizeof(ticket), session);
    if (status == 0 && session != NULL && session_request(session) == lookup->request &&
        login_is_in(session, PHASE_PEER)) {
        judge(session, lookup);
        session_update_reading(session);
    }
    free(lookup);
}

void login_peer_begin(struct session *session)
{
    struct ucred credentials;
    socklen_t length = sizeof(credentials);
    struct lookup *lookup = calloc(1, sizeof(*lookup));
    if (lookup == NULL) {
        session_end(session, "53200", "out of memory", NULL);
        return;
    }
    session->login->phase = PHASE_PEER;
    lookup->worker = session->worker;
    lookup->request = session_request(session);
    if (getsockopt(session->client.descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
        free(lookup);
        login_auth_refuse(session);
        return;
    }
    lookup->uid = credentials.uid;
    if (uv_queue_work(&session->worker->loop, &lookup->work, look_up, on_looked_up) != 0) {
        free(lookup);
        session_end(session, "53200", "out of memory", NULL);
    }
}
