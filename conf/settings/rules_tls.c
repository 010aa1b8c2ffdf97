#include "conf/settings/rules_tls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_SIZE = 64 };

/* Complains about SECTION.KEY, with the line of what makes it necessary. */
static bool complain(const struct walk *walk, const char *section, const char *key, const char *because,
                     const char *expected)
{
    char name[2 * NAME_SIZE], cause[2 * NAME_SIZE];
    (void)snprintf(name, sizeof name, "%s.%s", section, key);
    (void)snprintf(cause, sizeof cause, "%s.%s", section, because);
    int line = walk_line(walk, name);
    return walk_complain(walk, line > 0 ? line : walk_line(walk, cause), name, "%s", expected);
}

static bool check_pair(const struct walk *walk, const char *section, const char *cert, const char *key)
{
    if (cert[0] != '\0' && key[0] == '\0') {
        return complain(walk, section, "key", "cert", "expected the private key of the certificate");
    }
    if (key[0] != '\0' && cert[0] == '\0') {
        return complain(walk, section, "cert", "key", "expected the certificate of the private key");
    }
    return true;
}

static bool check_listen(const struct walk *walk, const struct settings_listen_tls *tls)
{
    static const char section[] = "listen.tls";
    if (tls->mode != TLS_MODE_DISABLE && tls->cert[0] == '\0') {
        return complain(walk, section, "cert", "mode", "expected a certificate: without one there is no TLS");
    }
    if (tls->crl[0] != '\0' && tls->ca[0] == '\0') {
        return complain(walk, section, "ca", "crl", "expected whose revocation list that is");
    }
    return check_pair(walk, section, tls->cert, tls->key);
}

static bool check_server(const struct walk *walk, const char *section, const struct settings_tls *tls,
                         const char *host)
{
    if (tls->mode >= TLS_MODE_VERIFY_CA && tls->ca[0] == '\0') {
        return complain(walk, section, "ca", "mode", "expected who signs the server's certificate");
    }
    if (tls->mode >= TLS_MODE_REQUIRE && host[0] == '/') {
        return complain(walk, section, "mode", "mode",
                        "expected disable or prefer: servers don't speak TLS on Unix sockets");
    }
    if (tls->crl[0] != '\0' && tls->ca[0] == '\0') {
        return complain(walk, section, "ca", "crl", "expected whose revocation list that is");
    }
    return check_pair(walk, section, tls->cert, tls->key);
}

static bool replace_empty(const struct walk *walk, char **field, const char *text)
{
    if ((*field)[0] == '\0' && text[0] != '\0') {
        char *copy = strdup(text);
        if (copy == NULL) {
            return error_set(walk->error, ERROR_MEMORY, "%s: out of memory", walk->file);
        }
        free(*field);
        *field = copy;
    }
    return true;
}

/* What isn't said about the way between the sides is as on the way from here. */
static bool derive(const struct walk *walk, const char *section, const struct settings_side *side,
                   struct settings_tls *tls)
{
    char mode[NAME_SIZE + sizeof ".mode"];
    (void)snprintf(mode, sizeof mode, "%s.mode", section);
    if (walk_line(walk, mode) == 0) {
        tls->mode = side->tls.mode;
        if (side->replication.host[0] == '/' && tls->mode >= TLS_MODE_REQUIRE) {
            tls->mode = TLS_MODE_PREFER; /* a Unix socket, on which there is none */
        }
    }
    return replace_empty(walk, &tls->ca, side->tls.ca) && replace_empty(walk, &tls->crl, side->tls.crl) &&
           (tls->cert[0] != '\0' || tls->key[0] != '\0' ||
            (replace_empty(walk, &tls->cert, side->tls.cert) &&
             replace_empty(walk, &tls->key, side->tls.key)));
}

bool rules_tls(const struct walk *walk, struct settings *settings)
{
    for (int i = 0; i < SIDE_COUNT; i++) {
        char own[NAME_SIZE], other[NAME_SIZE];
        struct settings_side *side = &settings->sides[i];
        (void)snprintf(own, sizeof own, "sides.%s.tls", side_name((enum side)i));
        (void)snprintf(other, sizeof other, "sides.%s.replication.tls", side_name((enum side)i));
        if (!derive(walk, other, side, &side->replication_tls) ||
            !check_server(walk, own, &side->tls, side->host) ||
            !check_server(walk, other, &side->replication_tls, side->replication.host)) {
            return false;
        }
    }
    return check_listen(walk, &settings->listen_tls);
}
