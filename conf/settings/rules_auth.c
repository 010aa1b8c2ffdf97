/* What the files that auth.* names hold: rules, maps and verifiers, checked as part of the configuration. */
#include "conf/base/ensure.h"
#include "conf/base/log.h"
#include "conf/hba/userlist.h"
#include "conf/settings/rules.h"

#include <stdio.h>
#include <string.h>

/* Each complaint is logged; the error has as many as fit in. */
static bool complain(const struct walk *walk, const char *name, const struct hba_problems *problems)
{
    char all[ERROR_MESSAGE_SIZE / 2] = "";
    size_t length = 0, shown = 0;
    const char *at = strbuf_text(&problems->text);
    while (*at != '\0') {
        char line[ERROR_MESSAGE_SIZE];
        size_t size = strcspn(at, "\n");
        (void)snprintf(line, sizeof line, "%.*s", (int)size, at);
        LOG_ERROR("auth_file_wrong", LOG_STR("setting", name), LOG_STR("error", line));
        size_t room = sizeof all - length;
        int written = snprintf(all + length, room, "%s%s", length == 0 ? "" : "; ", line);
        if (written > 0 && (size_t)written < room) {
            length += (size_t)written;
            shown++;
        } else if (shown > 0) {
            all[length] = '\0';
        }
        at += size + (at[size] == '\n' ? 1 : 0);
    }
    shown = shown == 0 ? 1 : shown;
    char more[40] = "";
    if (problems->count > shown) {
        (void)snprintf(more, sizeof more, " (and %zu more)", problems->count - shown);
    }
    return walk_complain(walk, walk_line(walk, name), name, "%s%s", all, more);
}

static struct hba *load_rules(const struct settings *settings, struct hba_problems *problems)
{
    static const enum hba_method methods[] = {[AUTH_TRUST] = HBA_TRUST,
                                              [AUTH_SCRAM_SHA_256] = HBA_SCRAM_SHA_256,
                                              [AUTH_MD5] = HBA_MD5,
                                              [AUTH_CERT] = HBA_CERT};
    const struct settings_auth *auth = &settings->auth;
    if (settings->auth_method == AUTH_HBA) {
        return hba_load(auth->hba_file, auth->ident_file, problems);
    }
    return hba_load_method(methods[settings->auth_method], auth->cert_name, auth->map, auth->ident_file,
                           problems);
}

static bool apply_rules(const struct walk *walk, struct settings *settings)
{
    struct hba_problems problems;
    struct settings_auth *auth = &settings->auth;
    bool by_file = settings->auth_method == AUTH_HBA;
    if (by_file && auth->hba_file[0] == '\0') {
        return walk_complain(walk, walk_line(walk, "auth.method"), "auth.hba_file",
                             "expected a file, as auth.method is hba");
    }
    if (!by_file && auth->hba_file[0] != '\0') {
        (void)walk_complain(walk, walk_line(walk, "auth.hba_file"), "auth.hba_file",
                            "expected auth.method: hba beside it, else nobody reads it");
        return error_remedy(walk->error, "write method: hba, or leave hba_file out");
    }
    hba_problems_init(&problems);
    auth->hba = load_rules(settings, &problems);
    bool ok = auth->hba != NULL || complain(walk, by_file ? "auth.hba_file" : "auth.ident_file", &problems);
    hba_problems_deinit(&problems);
    return ok;
}

static bool apply_verifiers(const struct walk *walk, struct settings *settings)
{
    static const char name[] = "auth.verifier_file";
    struct settings_auth *auth = &settings->auth;
    if (auth->verifier_file[0] == '\0') {
        return true;
    }
    if (auth->query[0] != '\0') {
        return walk_complain(walk, walk_line(walk, name), name,
                             "expected either verifier_file or query, found both");
    }
    struct hba_problems problems;
    hba_problems_init(&problems);
    auth->userlist = userlist_load(&hba_files, auth->verifier_file, &problems);
    bool ok = auth->userlist != NULL || complain(walk, name, &problems);
    hba_problems_deinit(&problems);
    return ok;
}

static bool check_query(const struct walk *walk, const struct settings *settings)
{
    const struct settings_auth *auth = &settings->auth;
    if (auth->query[0] != '\0' && strstr(auth->query, "$1") == NULL) {
        (void)walk_complain(walk, walk_line(walk, "auth.query"), "auth.query",
                            "expected $1, the role, in the query");
        return error_remedy(walk->error, "for instance: select rolname, rolpassword from my_roles($1)");
    }
    if (auth->database[0] != '\0' && auth->query[0] == '\0') {
        return walk_complain(walk, walk_line(walk, "auth.database"), "auth.database",
                             "expected auth.query beside it: it is where that runs");
    }
    if (auth->map[0] != '\0' && settings->auth_method != AUTH_CERT) {
        return walk_complain(walk, walk_line(walk, "auth.map"), "auth.map",
                             "expected auth.method: cert beside it; rules of an HBA file name their own map");
    }
    return true;
}

/* Rules that speak of TLS need it. */
static bool check_tls(const struct walk *walk, const struct settings *settings)
{
    const struct settings_listen_tls *tls = &settings->listen_tls;
    const struct hba_demand *needs = hba_needs_tls(settings->auth.hba);
    const struct hba_demand *certificate = hba_needs_certificate(settings->auth.hba);
    if (needs != NULL && tls->mode == TLS_MODE_DISABLE) {
        if (settings->auth_method == AUTH_CERT) {
            return walk_complain(walk, walk_line(walk, "auth.method"), "auth.method",
                                 "expected listen.tls beside it: certificates come by TLS");
        }
        LOG_WARN("auth_rule_never_holds", LOG_STR("file", needs->file), LOG_I64("line", needs->line),
                 LOG_STR("hint", "hostssl needs listen.tls"));
    } else if (certificate != NULL && tls->ca[0] == '\0') {
        return walk_complain(walk, walk_line(walk, "listen.tls.mode"), "listen.tls.ca",
                             "expected who signs the certificates of clients, which %s:%d asks for",
                             certificate->file, certificate->line);
    }
    return true;
}

bool rules_auth_apply(const struct walk *walk, struct settings *settings)
{
    return check_query(walk, settings) && apply_rules(walk, settings) && check_tls(walk, settings) &&
           apply_verifiers(walk, settings);
}
