#include "replication/brief.h"

#include "conf/base/ensure.h"
#include "replication/tls.h"

#include <stdlib.h>
#include <string.h>

static char *copy(const char *text, bool *failed)
{
    char *result = strdup(text == NULL ? "" : text);
    *failed = *failed || result == NULL;
    return result;
}

static char *copy_or(const char *text, const char *otherwise, bool *failed)
{
    return copy(text == NULL || *text == '\0' ? otherwise : text, failed);
}

static void copy_list(struct settings_list *to, const struct settings_list *from, bool *failed)
{
    to->items = calloc(from->count + 1, sizeof *to->items);
    if (to->items == NULL) {
        *failed = true;
        return;
    }
    for (size_t i = 0; i < from->count; i++) {
        to->items[to->count++] = copy(from->items[i], failed);
    }
}

static void free_secret(char *secret)
{
    if (secret != NULL) {
        explicit_bzero(secret, strlen(secret));
        free(secret);
    }
}

static void copy_side(struct brief_side *to, const struct settings_side *from,
                      const struct settings_endpoint *manager, bool *failed)
{
    const struct settings_endpoint *own = &from->replication;
    bool as_manager = own->user == NULL || *own->user == '\0';
    to->host = copy(from->host, failed);
    to->port = from->port;
    to->tls_server_name = copy(from->tls_server_name, failed);
    *failed = !tls_copy(&to->tls, &from->tls) || *failed;
    *failed = !tls_copy(&to->replication_tls, &from->replication_tls) || *failed;
    to->replication.host = copy_or(own->host, from->host, failed);
    to->replication.port = own->port == 0 ? from->port : own->port;
    to->replication.user = copy(as_manager ? manager->user : own->user, failed);
    to->replication.password = copy_or(own->password, as_manager ? manager->password : "", failed);
}

struct brief *brief_new(const struct settings *settings)
{
    bool failed = false;
    struct brief *brief = calloc(1, sizeof *brief);
    ENSURE(brief != NULL);
    for (int side = 0; side < SIDE_COUNT; side++) {
        copy_side(&brief->sides[side], &settings->sides[side], &settings->manager, &failed);
    }
    brief->manager.user = copy(settings->manager.user, &failed);
    brief->manager.password = copy(settings->manager.password, &failed);
    copy_list(&brief->databases, &settings->databases, &failed);
    copy_list(&brief->migrators, &settings->migrators, &failed);
    copy_list(&brief->local_tables, &settings->local_tables, &failed);
    brief->lossless = settings->lossless;
    brief->md5_allowed = settings->auth_method == AUTH_MD5 ||
                         (settings->auth_method == AUTH_HBA && hba_has_method(settings->auth.hba, HBA_MD5));
    brief->jobs = settings->prepare_jobs;
    brief->pg_bin_dir = copy(settings->prepare_pg_bin_dir, &failed);
    ENSURE(!failed);
    return brief;
}

void brief_free(struct brief *brief)
{
    if (brief == NULL) {
        return;
    }
    for (int side = 0; side < SIDE_COUNT; side++) {
        struct brief_side *own = &brief->sides[side];
        free(own->host);
        free(own->tls_server_name);
        tls_deinit(&own->tls);
        tls_deinit(&own->replication_tls);
        free(own->replication.host);
        free(own->replication.user);
        free_secret(own->replication.password);
    }
    free(brief->manager.user);
    free_secret(brief->manager.password);
    settings_list_deinit(&brief->databases);
    settings_list_deinit(&brief->migrators);
    settings_list_deinit(&brief->local_tables);
    free(brief->pg_bin_dir);
    free(brief);
}
