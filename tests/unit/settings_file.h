/*
 * For the tests of conf/settings: writes a configuration to a file in a folder of its own, loads it, and says
 * what was expected when that goes otherwise.
 */
#ifndef SWITCHBACK_TESTS_UNIT_SETTINGS_FILE_H
#define SWITCHBACK_TESTS_UNIT_SETTINGS_FILE_H

#include "conf/base/compiler.h"
#include "conf/settings/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* Three lines that are enough; what a test adds starts in line 4. */
#define ENOUGH                                                                                               \
    "sides: { blue: { host: a }, green: { host: b } }\n"                                                     \
    "manager: { user: m }\n"                                                                                 \
    "databases: [ app, shop ]\n"

static char folder[] = "/tmp/switchback-settings-XXXXXX";

static inline char *in_folder(const char *name)
{
    char *path = NULL;
    assert_true(asprintf(&path, "%s/%s", folder, name) > 0);
    return path;
}

static inline char *write_file(const char *name, const char *text, size_t length)
{
    char *path = in_folder(name);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, 0600), 0);
    return path;
}

static inline struct settings *load(const char *text, struct error *error)
{
    char *path = write_file("test.yaml", text, strlen(text));
    struct settings *settings = settings_load(path, error);
    free(path);
    return settings;
}

static inline struct settings *load_well(const char *text)
{
    struct error error;
    struct settings *settings = load(text, &error);
    if (settings == NULL) {
        fail_msg("%s", error.message);
    }
    return settings;
}

/* The text must be refused with FILE:LINE (no line if 0), and say `message` and `remedy`. */
static inline void refused(const char *text, int line, const char *message, const char *remedy)
{
    struct error error;
    struct settings *settings = load(text, &error);
    if (settings != NULL) {
        settings_free(settings);
        fail_msg("loaded, but expected \"%s\" for:\n%s", message, text);
    }
    char place[128];
    (void)snprintf(place, sizeof place, line > 0 ? "%s/test.yaml:%d: " : "%s/test.yaml: ", folder, line);
    if (strncmp(error.message, place, strlen(place)) != 0 ||
        strstr(error.message + strlen(place), message) == NULL) {
        fail_msg("expected \"%s... %s...\", found \"%s\"", place, message, error.message);
    }
    if (remedy != NULL && strstr(error.remedy, remedy) == NULL) {
        fail_msg("expected the remedy \"%s\", found \"%s\"", remedy, error.remedy);
    }
    assert_true(error.code == ERROR_CONFIG);
}

static inline int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static inline int drop_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"test.yaml", "password", "again.yaml"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        char *path = in_folder(names[i]);
        (void)unlink(path);
        free(path);
    }
    return rmdir(folder);
}

#define WITH_MANAGER(keys)                                                                                   \
    "sides: { blue: { host: a }, green: { host: b } }\n"                                                     \
    "databases: [ app ]\n"                                                                                   \
    "manager: { user: m, " keys " }\n"

#endif
