#include "replication/dump.h"

#include "replication/blocking.h"
#include "replication/child.h"
#include "replication/dump_filter.h"
#include "replication/names.h"
#include "replication/tls.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LIST_LIMIT = 256 << 20, FOUND_LIMIT = 512, VARIABLE_SIZE = 1024 };

/* --- which pg_dump --- */

static int read_version(struct task *task, char *path)
{
    char *const arguments[] = {path, "--version", NULL};
    const char *home = getenv("PATH");
    char search[VARIABLE_SIZE];
    (void)snprintf(search, sizeof search, "PATH=%s", home == NULL ? "/usr/bin:/bin" : home);
    char locale[] = "LC_ALL=C";
    char *const environment[] = {locale, search, NULL};
    struct error error;
    struct strbuf text;
    strbuf_init(&text, VARIABLE_SIZE);
    int major = 0;
    if (child_run(task,
                  &(struct child_plan){.arguments = arguments,
                                       .environment = environment,
                                       .input = -1,
                                       .output = -1,
                                       .extra = -1,
                                       .captured = &text},
                  &error)) {
        const char *number = strpbrk(strbuf_text(&text), "0123456789");
        major = number == NULL ? 0 : (int)strtol(number, NULL, 10);
    }
    strbuf_deinit(&text);
    return major;
}

/* Takes the directory if its tools are fit and older than those taken before. */
static void consider(struct task *task, const char *directory, int major, struct dump_tools *tools,
                     struct strbuf *found)
{
    char path[sizeof tools->directory + 16];
    char restore[sizeof path];
    (void)snprintf(path, sizeof path, "%s/pg_dump", directory);
    (void)snprintf(restore, sizeof restore, "%s/pg_restore", directory);
    if (strlen(directory) >= sizeof tools->directory || access(path, X_OK) != 0 ||
        access(restore, X_OK) != 0) {
        return;
    }
    int version = read_version(task, path);
    if (version > 0) {
        strbuf_printf(found, "%s%d in %s", found->length == 0 ? "" : ", ", version, directory);
    }
    if (version >= major && (tools->major == 0 || version < tools->major)) {
        tools->major = version;
        (void)snprintf(tools->directory, sizeof tools->directory, "%s", directory);
    }
}

static void consider_path(struct task *task, int major, struct dump_tools *tools, struct strbuf *found)
{
    const char *path = getenv("PATH");
    char *copy = path == NULL ? NULL : strdup(path);
    char *rest = copy;
    for (char *directory = strsep(&rest, ":"); directory != NULL; directory = strsep(&rest, ":")) {
        consider(task, directory, major, tools, found);
    }
    free(copy);
}

static void consider_packages(struct task *task, int major, struct dump_tools *tools, struct strbuf *found)
{
    static const char *const patterns[] = {"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin",
                                           "/usr/local/pgsql*/bin"};
    for (size_t i = 0; i < ARRAY_LENGTH(patterns); i++) {
        glob_t matches;
        if (glob(patterns[i], 0, NULL, &matches) == 0) {
            for (size_t k = 0; k < matches.gl_pathc; k++) {
                consider(task, matches.gl_pathv[k], major, tools, found);
            }
            globfree(&matches);
        }
    }
}

bool dump_find_tools(struct task *task, const struct brief *brief, int major, struct dump_tools *tools,
                     struct error *error)
{
    struct strbuf found;
    strbuf_init(&found, FOUND_LIMIT);
    *tools = (struct dump_tools){.major = 0};
    if (*brief->pg_bin_dir != '\0') {
        consider(task, brief->pg_bin_dir, major, tools, &found);
    } else {
        consider_path(task, major, tools, &found);
        consider_packages(task, major, tools, &found);
    }
    if (tools->major == 0) {
        error_set(error, ERROR_COMMAND_FAILED, "no pg_dump of version %d or newer%s%s (found: %s)", major,
                  *brief->pg_bin_dir == '\0' ? "" : " in ", brief->pg_bin_dir,
                  found.length == 0 ? "none" : strbuf_text(&found));
        error_remedy(
            error,
            "install postgresql-client-%d, set prepare.pg_bin_dir to where it stands, or restore the "
            "schema on the standby by hand",
            major);
    }
    strbuf_deinit(&found);
    return tools->major != 0;
}

/* --- running it --- */

enum { VARIABLES = 10 + TLS_PARAMETERS };

struct environment {
    char texts[VARIABLES][VARIABLE_SIZE];
    char *pointers[VARIABLES + 1];
    size_t count;
    bool failed; /* a value is too long */
};

static void put_variable(struct environment *environment, const char *name, const char *value)
{
    char *text = environment->texts[environment->count];
    int length = snprintf(text, VARIABLE_SIZE, "%s=%s", name, value);
    environment->failed = environment->failed || length >= VARIABLE_SIZE;
    environment->pointers[environment->count++] = text;
}

static void put_way(struct environment *environment, const struct brief_side *side)
{
    const char *name = tls_host(side->host, side->tls_server_name);
    char address[TLS_ADDRESS_SIZE];
    struct tls_parameter parameters[TLS_PARAMETERS];
    put_variable(environment, "PGHOST", name == NULL ? side->host : name);
    if (name != NULL) {
        tls_look_up(side->host, address);
        put_variable(environment, "PGHOSTADDR", address);
    }
    tls_parameters(&side->tls, parameters);
    for (size_t i = 0; i < TLS_PARAMETERS; i++) {
        put_variable(environment, parameters[i].variable, parameters[i].value);
    }
}

static bool fill_environment(struct environment *environment, const struct brief *brief, enum side side,
                             const char *database, struct error *error)
{
    char port[16];
    char application[NAMES_APPLICATION_SIZE];
    const char *path = getenv("PATH");
    *environment = (struct environment){.count = 0};
    (void)snprintf(port, sizeof port, "%d", (int)brief->sides[side].port);
    put_variable(environment, "PATH", path == NULL ? "/usr/bin:/bin" : path);
    put_variable(environment, "LC_ALL", "C");
    put_way(environment, &brief->sides[side]);
    put_variable(environment, "PGPORT", port);
    put_variable(environment, "PGUSER", brief->manager.user);
    put_variable(environment, "PGDATABASE", database);
    put_variable(environment, "PGAPPNAME", names_application("pg_dump", application));
    put_variable(environment, "PGPASSFILE", NO_PASSFILE);
    if (*brief->manager.password != '\0') {
        put_variable(environment, "PGPASSWORD", brief->manager.password);
    }
    return !environment->failed ||
           error_set(error, ERROR_CONFIG, "a host, name or password is too long for the environment");
}

static int memory_file(const char *name, struct error *error)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0) {
        error_set(error, ERROR_SYSTEM, "can't make a file in memory: %s", strerror(errno));
    }
    return fd;
}

static bool write_all(int fd, const struct strbuf *text, struct error *error)
{
    for (size_t done = 0; done < text->length;) {
        ssize_t written = write(fd, text->data + done, text->length - done);
        if (written < 0 && errno != EINTR) {
            return error_set(error, ERROR_SYSTEM, "can't write a file in memory: %s", strerror(errno));
        }
        done += written > 0 ? (size_t)written : 0;
    }
    return true;
}

/* pg_restore of the archive in `archive`: its list, or (with `list`) the SQL of what the list names. */
static bool restore(struct task *task, char *program, const struct environment *environment, int archive,
                    int list, struct strbuf *output, struct error *error)
{
    char *const lister[] = {program, "--list", NULL};
    char *const writer[] = {program, "--use-list=/proc/self/fd/3", "--file=-", NULL};
    if (lseek(archive, 0, SEEK_SET) < 0) {
        return error_set(error, ERROR_SYSTEM, "can't rewind the dump: %s", strerror(errno));
    }
    return child_run(task,
                     &(struct child_plan){.arguments = list < 0 ? lister : writer,
                                          .environment = environment->pointers,
                                          .input = archive,
                                          .output = -1,
                                          .extra = list,
                                          .captured = output},
                     error);
}

static bool dump_into(struct task *task, const struct dump_tools *tools,
                      const struct environment *environment, int archive, int list, struct strbuf *sql,
                      struct error *error)
{
    char dump[sizeof tools->directory + 16];
    char program[sizeof dump];
    (void)snprintf(dump, sizeof dump, "%s/pg_dump", tools->directory);
    (void)snprintf(program, sizeof program, "%s/pg_restore", tools->directory);
    static char not_ours[] = "--exclude-schema=" NAMES_SCHEMA;
    char *const arguments[] = {dump,
                               "--schema-only",
                               "--format=custom",
                               "--no-password",
                               "--no-tablespaces",
                               "--no-publications",
                               "--no-subscriptions",
                               not_ours,
                               "--lock-wait-timeout=60000",
                               NULL};
    if (!child_run(task,
                   &(struct child_plan){.arguments = arguments,
                                        .environment = environment->pointers,
                                        .input = -1,
                                        .output = archive,
                                        .extra = -1},
                   error)) {
        return false;
    }
    struct strbuf names;
    struct strbuf kept;
    strbuf_init(&names, LIST_LIMIT);
    strbuf_init(&kept, LIST_LIMIT);
    bool ok = restore(task, program, environment, archive, -1, &names, error);
    if (ok) {
        dump_filter_list(strbuf_text(&names), &kept);
        ok = kept.failed ? error_set(error, ERROR_MEMORY, "the list of the dump is too long")
                         : write_all(list, &kept, error) &&
                               restore(task, program, environment, archive, list, sql, error);
    }
    strbuf_deinit(&names);
    strbuf_deinit(&kept);
    return ok;
}

bool dump_schema(struct task *task, const struct brief *brief, const struct dump_tools *tools, enum side side,
                 const char *database, int standby_major, struct strbuf *sql, struct error *error)
{
    struct environment environment;
    if (!fill_environment(&environment, brief, side, database, error)) {
        return false;
    }
    int archive = memory_file("switchback-dump", error);
    int list = archive < 0 ? -1 : memory_file("switchback-list", error);
    struct strbuf text;
    strbuf_init(&text, DUMP_LIMIT);
    bool ok = list >= 0 && dump_into(task, tools, &environment, archive, list, &text, error);
    if (ok) {
        dump_filter_sql(strbuf_text(&text), standby_major, sql);
        ok = !sql->failed || error_set(error, ERROR_MEMORY, "the schema's SQL is too long");
    }
    strbuf_deinit(&text);
    explicit_bzero(&environment, sizeof environment);
    if (list >= 0) {
        (void)close(list);
    }
    if (archive >= 0) {
        (void)close(archive);
    }
    return ok;
}
