#include "control/daemon/mock_secret.h"

#include "conf/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_SIZE = 512 };

static bool read_secret(const char *path, uint8_t secret[MOCK_SECRET_SIZE])
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    bool whole = read(file, secret, MOCK_SECRET_SIZE) == MOCK_SECRET_SIZE;
    (void)close(file);
    return whole;
}

/* Beside the file first, so that half a secret is never found there. */
static bool write_secret(const char *path, const uint8_t secret[MOCK_SECRET_SIZE])
{
    char draft[PATH_SIZE + 8];
    (void)snprintf(draft, sizeof(draft), "%s.new", path);
    int file = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0) {
        return false;
    }
    bool written = write(file, secret, MOCK_SECRET_SIZE) == MOCK_SECRET_SIZE && fsync(file) == 0;
    written = close(file) == 0 && written;
    return written && rename(draft, path) == 0;
}

bool mock_secret_load(const char *directory, uint8_t secret[MOCK_SECRET_SIZE], struct error *error)
{
    char path[PATH_SIZE];
    int length = snprintf(path, sizeof(path), "%s/mock_secret", directory);
    if (length < 0 || (size_t)length >= sizeof(path)) {
        return error_set(error, ERROR_SYSTEM, "%s/mock_secret: the path is too long", directory);
    }
    if (read_secret(path, secret)) {
        return true;
    }
    if (RAND_bytes(secret, MOCK_SECRET_SIZE) != 1) {
        return error_set(error, ERROR_SYSTEM, "no randomness for %s", path);
    }
    if (!write_secret(path, secret)) {
        return error_set(error, ERROR_SYSTEM, "%s can't be written: %s", path, strerror(errno));
    }
    LOG_DEBUG("mock_secret_made", LOG_STR("path", path));
    return true;
}
