/*
 * Host-based authentication: PostgreSQL's pg_hba.conf and pg_ident.conf, read once and then immutable.
 * conf/settings loads the files (auth.hba_file, auth.ident_file), so that a mistake in them is a mistake of
 * the configuration; the proxy asks at each login which rule holds. (PostgreSQL documentation, "Client
 * Authentication".)
 *
 * Not supported, and refused with the line: the methods password, gss, sspi, ldap, radius, pam and bsd, ident
 * over TCP, hostgssenc, host names as addresses, include_dir. One thing is more than PostgreSQL has:
 * clientname=SAN takes the names of the certificate's subjectAltName.
 */
#ifndef SWITCHBACK_CONF_HBA_HBA_H
#define SWITCHBACK_CONF_HBA_HBA_H

#include "conf/hba/problems.h"

#include <sys/socket.h>

struct hba;
struct hba_source;

enum hba_type { HBA_LOCAL, HBA_HOST, HBA_HOSTSSL, HBA_HOSTNOSSL };
enum hba_method { HBA_TRUST, HBA_REJECT, HBA_SCRAM_SHA_256, HBA_MD5, HBA_CERT, HBA_PEER };
/* What the client's certificate must be: none is asked for, one of a known authority, one of this user. */
enum hba_certificate { HBA_CERTIFICATE_ANY, HBA_CERTIFICATE_VERIFY_CA, HBA_CERTIFICATE_VERIFY_FULL };
/* Which of its names count. */
enum hba_client_name { HBA_CLIENT_NAME_CN, HBA_CLIENT_NAME_DN, HBA_CLIENT_NAME_SAN };

/* What a rule asks of a client; owned by its struct hba. */
struct hba_demand {
    enum hba_method method;
    enum hba_certificate certificate;
    enum hba_client_name client_name;
    const char *map;  /* of the ident file; NULL: names must be equal */
    const char *file; /* where the rule stands */
    int line;
};

/* Who wants to come in. */
struct hba_client {
    bool local;                     /* by the Unix socket; else: */
    const struct sockaddr *address; /* of the client; v4 mapped into v6 counts as v4 */
    bool tls;
    bool physical; /* a replication connection without a database */
    const char *user, *database;
    /* Whether the user is that role or a member of it, at any remove; NULL: not known, never. */
    bool (*is_member)(const void *context, const char *role);
    const void *context;
};

/* The rules of both files; ident_path "" is none. NULL: problems says everything that is wrong. */
MUST_USE struct hba *hba_load(const char *hba_path, const char *ident_path, struct hba_problems *problems);
/* The same with a source of its own. */
MUST_USE struct hba *hba_load_from(const struct hba_source *source, const char *hba_path,
                                   const char *ident_path, struct hba_problems *problems);
/* Rules that ask everybody for the same; client_name and map ("" is none) go with HBA_CERT. */
MUST_USE struct hba *hba_load_method(enum hba_method method, enum hba_client_name client_name,
                                     const char *map, const char *ident_path, struct hba_problems *problems);

struct hba *hba_ref(struct hba *hba);
void hba_unref(struct hba *hba); /* NULL is allowed */

/* The first rule that holds; NULL: none does, and so nobody comes in. */
const struct hba_demand *hba_match(const struct hba *hba, const struct hba_client *client);

/* The rules stand in a file: not those of hba_load_method(). */
bool hba_has_file(const struct hba *hba);
/* Some rule has that method. */
bool hba_has_method(const struct hba *hba, enum hba_method method);
/* Some rule can only be judged by one who knows of which roles a role is a member. */
bool hba_needs_groups(const struct hba *hba);
/* The first rule that can never hold without TLS to clients; that asks for a certificate. NULL: none does. */
const struct hba_demand *hba_needs_tls(const struct hba *hba);
const struct hba_demand *hba_needs_certificate(const struct hba *hba);

/* Whether the one whom the system, or a certificate, calls `name` may be client->user, by the map. */
bool hba_may_be(const struct hba *hba, const char *map, const char *name, const struct hba_client *client);

/* Whether the files say the same, but for comments and the like: a reload tells what has changed. */
bool hba_same_rules(const struct hba *a, const struct hba *b);
bool hba_same_maps(const struct hba *a, const struct hba *b);

const char *hba_method_name(enum hba_method method);

#endif
