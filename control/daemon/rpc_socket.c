#include "control/daemon/rpc_socket.h"

#include "conf/base/log.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* The last part of the directory's path is made if it is missing: /run is emptied at each boot. */
static bool make_directory(const char *path, struct error *error)
{
    char directory[sizeof(((struct sockaddr_un *)0)->sun_path)];
    (void)snprintf(directory, sizeof(directory), "%s", path);
    char *slash = strrchr(directory, '/');
    if (slash == NULL || slash == directory) {
        return true;
    }
    *slash = '\0';
    if (mkdir(directory, 0755) == 0 || errno == EEXIST) {
        return true;
    }
    error_set(error, ERROR_SYSTEM, "the control socket's directory %s can't be created: %s", directory,
              strerror(errno));
    return error_remedy(error, "create it, owned by the daemon's user, or set control.socket");
}

/* A socket file that a dead daemon left behind refuses connections; anything else stays where it is. */
static bool make_way(const struct sockaddr_un *address, struct error *error)
{
    struct stat status;
    if (lstat(address->sun_path, &status) != 0) {
        return errno == ENOENT ||
               error_set(error, ERROR_SYSTEM, "control.socket %s: %s", address->sun_path, strerror(errno));
    }
    if (!S_ISSOCK(status.st_mode)) {
        error_set(error, ERROR_SYSTEM, "control.socket %s exists and is not a socket", address->sun_path);
        return error_remedy(error, "remove it, or set another path");
    }
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0) {
        return error_set(error, ERROR_SYSTEM, "no socket: %s", strerror(errno));
    }
    bool dead =
        connect(probe, (const struct sockaddr *)address, sizeof(*address)) != 0 && errno == ECONNREFUSED;
    close(probe);
    if (!dead) {
        error_set(error, ERROR_SYSTEM, "another program listens on control.socket %s", address->sun_path);
        return error_remedy(error, "stop it, or set another path");
    }
    if (unlink(address->sun_path) != 0) {
        return error_set(error, ERROR_SYSTEM, "control.socket %s can't be replaced: %s", address->sun_path,
                         strerror(errno));
    }
    return true;
}

void rpc_socket_mode(const char *path, bool roles_configured)
{
    if (chmod(path, roles_configured ? 0666 : 0660) != 0) {
        LOG_WARN("rpc_socket_mode", LOG_STR("path", path), LOG_STR("error", strerror(errno)));
    }
}

int rpc_socket_listen(const char *path, bool roles_configured, int backlog, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path[0] == '\0' || strlen(path) >= sizeof(address.sun_path)) {
        error_set(error, ERROR_CONFIG, "control.socket: a path of 1 to %zu bytes was expected",
                  sizeof(address.sun_path) - 1);
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (!make_directory(path, error) || !make_way(&address, error)) {
        return -1;
    }
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (descriptor < 0) {
        error_set(error, ERROR_SYSTEM, "no socket: %s", strerror(errno));
        return -1;
    }
    /* Nobody else may connect between bind and chmod. */
    mode_t before = umask(0177);
    int status = bind(descriptor, (const struct sockaddr *)&address, sizeof(address));
    umask(before);
    if (status != 0 || listen(descriptor, backlog) != 0) {
        error_set(error, ERROR_SYSTEM, "control.socket %s can't be opened: %s", path, strerror(errno));
        close(descriptor);
        return -1;
    }
    rpc_socket_mode(path, roles_configured);
    return descriptor;
}
