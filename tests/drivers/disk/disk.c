/*
 * A disk that a test breaks while a program uses it: preloaded, it makes calls on files under a folder fail
 * or take their time. The test writes what it wants into a small file that every process of the program has
 * mapped.
 *
 *   LD_PRELOAD=libfaulty_disk.so FAULTY_DISK_PATH=/folder FAULTY_DISK_CONTROL=/file
 *
 * The control file: int32 faults (a sum of `enum fault`), int32 milliseconds of a slow fsync, int32 the calls
 * that were failed or slowed so far.
 *
 * FULL is what a full disk does: blocks that a file has can be written over, more can't be had. READ_ONLY is
 * what remains after a file system met an error and protected itself. SYNC_FAILS is the nasty one: data is
 * written and perhaps even kept, and who wrote it is told that it isn't.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum fault { FULL = 1, READ_ONLY = 2, SYNC_FAILS = 4, SYNC_SLOW = 8 };
enum { DESCRIPTORS = 65536 };

struct control {
    _Atomic int32_t faults, slow_ms, struck;
};

static struct control none, *control = &none;
static char folder[PATH_MAX];
static size_t folder_length;
static atomic_bool ours[DESCRIPTORS]; /* by descriptor: a file under the folder */
static pthread_once_t once = PTHREAD_ONCE_INIT;

#define REAL(name) ((__typeof__(&(name)))real(#name))

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) {
        abort();
    }
    return found;
}

static void set_up(void)
{
    const char *path = getenv("FAULTY_DISK_PATH"), *file = getenv("FAULTY_DISK_CONTROL");
    if (!path || !file || !realpath(path, folder)) {
        return;
    }
    folder_length = strlen(folder);
    int fd = REAL(open)(file, O_RDWR | O_CLOEXEC);
    void *mapped = MAP_FAILED;
    if (fd >= 0) {
        mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        REAL(close)(fd);
    }
    if (mapped == MAP_FAILED) {
        abort(); /* a test that believes to break a disk and doesn't is worth nothing */
    }
    control = mapped;
}

static bool under_folder(const char *path)
{
    return folder_length && strncmp(path, folder, folder_length) == 0 &&
           (path[folder_length] == '/' || path[folder_length] == '\0');
}

/* A path as a program names it: its folder exists, itself it may not. */
static bool is_path_ours(int at, const char *path)
{
    char whole[2 * PATH_MAX], base[PATH_MAX] = "";
    if (path[0] != '/') {
        char link[64];
        snprintf(link, sizeof(link), "/proc/self/fd/%d", at);
        ssize_t length = at == AT_FDCWD ? (getcwd(base, sizeof(base)) ? (ssize_t)strlen(base) : -1)
                                        : readlink(link, base, sizeof(base) - 1);
        if (length < 0) {
            return false;
        }
        base[length] = '\0';
    }
    snprintf(whole, sizeof(whole), "%s%s%s", base, base[0] ? "/" : "", path);
    return under_folder(whole);
}

static bool struck(enum fault fault)
{
    if ((atomic_load(&control->faults) & (int)fault) == 0) {
        return false;
    }
    atomic_fetch_add(&control->struck, 1);
    return true;
}

static bool is_ours(int fd)
{
    return fd >= 0 && fd < DESCRIPTORS && atomic_load(&ours[fd]);
}

static int note_opened(int fd)
{
    char link[64], path[PATH_MAX];
    if (fd < 0 || fd >= DESCRIPTORS) {
        return fd;
    }
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof(path) - 1);
    path[length < 0 ? 0 : length] = '\0';
    atomic_store(&ours[fd], under_folder(path));
    return fd;
}

/* An open that may not be: what creates or changes, on a disk that can't. */
static bool open_fails(int at, const char *path, int flags)
{
    pthread_once(&once, set_up);
    if (atomic_load(&control->faults) == 0 || !is_path_ours(at, path)) {
        return false;
    }
    if ((flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) != 0 && struck(READ_ONLY)) {
        errno = EROFS;
        return true;
    }
    if ((flags & O_CREAT) != 0 && faccessat(at, path, F_OK, 0) != 0 && struck(FULL)) {
        errno = ENOSPC;
        return true;
    }
    return false;
}

/* A change of what the descriptor's file holds, up to `end` (-1: at its position). 0 or the errno. */
static int change_fails(int fd, off_t end, off_t length)
{
    if (!is_ours(fd)) {
        return 0;
    }
    if (struck(READ_ONLY)) {
        return EROFS;
    }
    struct stat status;
    if ((atomic_load(&control->faults) & FULL) != 0 && fstat(fd, &status) == 0) {
        if (end < 0) {
            off_t at = lseek(fd, 0, SEEK_CUR);
            end = (fcntl(fd, F_GETFL) & O_APPEND ? status.st_size : at) + length;
        }
        if (end > status.st_size && struck(FULL)) {
            return ENOSPC;
        }
    }
    return 0;
}

static int sync_fails(int fd)
{
    if (!is_ours(fd)) {
        return 0;
    }
    if (struck(SYNC_SLOW)) {
        int ms = atomic_load(&control->slow_ms);
        struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
        nanosleep(&pause, NULL);
    }
    return struck(READ_ONLY) || struck(SYNC_FAILS) ? EIO : 0;
}

static off_t total(const struct iovec *parts, int count)
{
    off_t length = 0;
    for (int i = 0; i < count; i++) {
        length += (off_t)parts[i].iov_len;
    }
    return length;
}

/* --- the calls --------------------------------------------------------------------------------------------
 */

#define MODE_OF(flags, mode)                                                                                 \
    if (((flags)&O_CREAT) != 0 || ((flags)&O_TMPFILE) == O_TMPFILE) {                                        \
        va_list rest;                                                                                        \
        va_start(rest, flags);                                                                               \
        (mode) = va_arg(rest, mode_t);                                                                       \
        va_end(rest);                                                                                        \
    }

#define DEFINE_OPEN(name)                                                                                    \
    int name(const char *path, int flags, ...)                                                               \
    {                                                                                                        \
        mode_t mode = 0;                                                                                     \
        MODE_OF(flags, mode)                                                                                 \
        return open_fails(AT_FDCWD, path, flags) ? -1 : note_opened(REAL(name)(path, flags, mode));          \
    }
#define DEFINE_OPENAT(name)                                                                                  \
    int name(int at, const char *path, int flags, ...)                                                       \
    {                                                                                                        \
        mode_t mode = 0;                                                                                     \
        MODE_OF(flags, mode)                                                                                 \
        return open_fails(at, path, flags) ? -1 : note_opened(REAL(name)(at, path, flags, mode));            \
    }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

/* What fortified programs call instead of an open without a mode. */
int __open64_2(const char *path, int flags);
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags)
{
    return open64(path, flags);
}
int __open_2(const char *path, int flags)
{
    return open(path, flags);
}

int close(int fd)
{
    if (fd >= 0 && fd < DESCRIPTORS) {
        atomic_store(&ours[fd], false);
    }
    return REAL(close)(fd);
}

#define UNLESS_FAILS(fault, otherwise)                                                                       \
    int why = (fault);                                                                                       \
    if (why != 0) {                                                                                          \
        errno = why;                                                                                         \
        return -1;                                                                                           \
    }                                                                                                        \
    return (otherwise);

ssize_t write(int fd, const void *data,
              size_t length){UNLESS_FAILS(change_fails(fd, -1, (off_t)length), REAL(write)(fd, data, length))}

ssize_t writev(int fd, const struct iovec *parts, int count){
    UNLESS_FAILS(change_fails(fd, -1, total(parts, count)), REAL(writev)(fd, parts, count))}

#define DEFINE_PWRITE(name)                                                                                  \
    ssize_t name(int fd, const void *data, size_t length, off_t at)                                          \
    {                                                                                                        \
        UNLESS_FAILS(change_fails(fd, at + (off_t)length, 0), REAL(name)(fd, data, length, at))              \
    }
DEFINE_PWRITE(pwrite) DEFINE_PWRITE(pwrite64)

#define DEFINE_PWRITEV(name)                                                                                 \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t at)                                     \
    {                                                                                                        \
        UNLESS_FAILS(change_fails(fd, at + total(parts, count), 0), REAL(name)(fd, parts, count, at))        \
    }
    DEFINE_PWRITEV(pwritev) DEFINE_PWRITEV(pwritev64)

        int fsync(int fd)
{
    UNLESS_FAILS(sync_fails(fd), REAL(fsync)(fd))
}

int fdatasync(int fd){UNLESS_FAILS(sync_fails(fd), REAL(fdatasync)(fd))}

#define DEFINE_FTRUNCATE(name)                                                                               \
    int name(int fd, off_t length)                                                                           \
    {                                                                                                        \
        UNLESS_FAILS(is_ours(fd) && struck(READ_ONLY) ? EROFS : 0, REAL(name)(fd, length))                   \
    }
DEFINE_FTRUNCATE(ftruncate) DEFINE_FTRUNCATE(ftruncate64)

#define DEFINE_POSIX_FALLOCATE(name)                                                                         \
    int name(int fd, off_t at, off_t length)                                                                 \
    {                                                                                                        \
        int why = change_fails(fd, at + length, 0);                                                          \
        return why != 0 ? why : REAL(name)(fd, at, length);                                                  \
    }
    DEFINE_POSIX_FALLOCATE(posix_fallocate) DEFINE_POSIX_FALLOCATE(posix_fallocate64)

#define DEFINE_FALLOCATE(name)                                                                               \
    int name(int fd, int mode, off_t at, off_t length)                                                       \
    {                                                                                                        \
        UNLESS_FAILS(change_fails(fd, at + length, 0), REAL(name)(fd, mode, at, length))                     \
    }
        DEFINE_FALLOCATE(fallocate) DEFINE_FALLOCATE(fallocate64)

            int rename(const char *from, const char *to)
{
    pthread_once(&once, set_up);
    UNLESS_FAILS(is_path_ours(AT_FDCWD, to) && struck(READ_ONLY) ? EROFS : 0, REAL(rename)(from, to))
}

int unlink(const char *path)
{
    pthread_once(&once, set_up);
    UNLESS_FAILS(is_path_ours(AT_FDCWD, path) && struck(READ_ONLY) ? EROFS : 0, REAL(unlink)(path))
}
