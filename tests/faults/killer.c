/* Preloaded into a process, this counts the file operations below one folder and sends the process a signal at one of
   them: kill -9 at every point where the disk can differ. Operations of other processes (a `git` child) do not count. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX], only[PATH_MAX];
static atomic_long count, deadly;
static atomic_int half, number;
static pid_t owner;

/* From now on, count the operations on paths below FOLDER that contain ONLY; at the AT-th send SIGNAL_NUMBER. Before it,
   or, when HALVED is set and it is a write, after half of it. */
void killer_arm(const char *below, const char *containing, long at, int halved, int signal_number) {
    snprintf(folder, sizeof folder, "%s/", below);
    snprintf(only, sizeof only, "%s", containing);
    count = 0;
    deadly = at;
    half = halved;
    number = signal_number;
    owner = getpid();
}

long killer_count(void) { return count; }

static int counts(const char *path) {
    return owner == getpid() && strncmp(path, folder, strlen(folder)) == 0 && strstr(path, only) != NULL;
}

static int counts_at(int place, const char *path) {
    char joined[2 * PATH_MAX], link[64];
    ssize_t length;
    if (owner == 0 || path == NULL || owner != getpid()) return 0;
    if (path[0] == '/') return counts(path);
    if (place == AT_FDCWD) {
        if (getcwd(joined, PATH_MAX) == NULL) return 0;
        length = (ssize_t)strlen(joined);
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", place);
        if ((length = readlink(link, joined, PATH_MAX)) < 0) return 0;
    }
    snprintf(joined + length, PATH_MAX, "/%s", path);
    return counts(joined);
}

static int counts_fd(int place) {
    char path[PATH_MAX], link[64];
    ssize_t length;
    if (owner == 0 || owner != getpid()) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", place);
    if ((length = readlink(link, path, sizeof path - 1)) < 0) return 0;
    path[length] = '\0';
    return counts(path);
}

static int is_due(int counted) { return counted && atomic_fetch_add(&count, 1) + 1 == deadly; }
static void end(void) { raise(number); } /* at this thread: it is not to take another step */
static void step(int counted) {
    if (is_due(counted)) end();
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRITES(flags) ((flags) & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC))
#define MODE(flags)                                        \
    mode_t mode = 0;                                       \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {               \
        va_list rest;                                      \
        va_start(rest, flags);                             \
        mode = va_arg(rest, mode_t);                       \
        va_end(rest);                                      \
    }

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...) {                            \
        MODE(flags)                                                         \
        step(WRITES(flags) && counts_at(AT_FDCWD, path));                   \
        return REAL(name)(path, flags, mode);                               \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                        \
    int name(int place, const char *path, int flags, ...) {                 \
        MODE(flags)                                                         \
        step(WRITES(flags) && counts_at(place, path));                      \
        return REAL(name)(place, path, flags, mode);                        \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int file, const void *bytes, size_t length) {
    if (is_due(counts_fd(file))) {
        if (half) REAL(write)(file, bytes, length / 2);
        end();
    }
    return REAL(write)(file, bytes, length);
}

ssize_t writev(int file, const struct iovec *parts, int many) {
    step(counts_fd(file));
    return REAL(writev)(file, parts, many);
}

#define ON_FILE(type, name, rest, values)                                   \
    type name(int file rest) {                                              \
        step(counts_fd(file));                                              \
        return REAL(name)(file values);                                     \
    }
#define AND ,
ON_FILE(ssize_t, pwrite, AND const void *bytes AND size_t length AND off_t place, AND bytes AND length AND place)
ON_FILE(ssize_t, pwrite64, AND const void *bytes AND size_t length AND off64_t place, AND bytes AND length AND place)
ON_FILE(int, ftruncate, AND off_t length, AND length)
ON_FILE(int, ftruncate64, AND off64_t length, AND length)
ON_FILE(int, fsync, , )
ON_FILE(int, fdatasync, , )

#define ON_PATH(name, rest, values)                                         \
    int name(const char *path rest) {                                       \
        step(counts_at(AT_FDCWD, path));                                    \
        return REAL(name)(path values);                                     \
    }
ON_PATH(unlink, , )
ON_PATH(rmdir, , )
ON_PATH(mkdir, AND mode_t mode, AND mode)
ON_PATH(truncate, AND off_t length, AND length)

int unlinkat(int place, const char *path, int flags) {
    step(counts_at(place, path));
    return REAL(unlinkat)(place, path, flags);
}

int mkdirat(int place, const char *path, mode_t mode) {
    step(counts_at(place, path));
    return REAL(mkdirat)(place, path, mode);
}

#define ON_PATHS(name)                                                      \
    int name(const char *from, const char *to) {                            \
        step(counts_at(AT_FDCWD, from) || counts_at(AT_FDCWD, to));         \
        return REAL(name)(from, to);                                        \
    }
ON_PATHS(rename)
ON_PATHS(link)

int renameat(int place, const char *from, int other, const char *to) {
    step(counts_at(place, from) || counts_at(other, to));
    return REAL(renameat)(place, from, other, to);
}

int renameat2(int place, const char *from, int other, const char *to, unsigned flags) {
    step(counts_at(place, from) || counts_at(other, to));
    return REAL(renameat2)(place, from, other, to, flags);
}

int linkat(int place, const char *from, int other, const char *to, int flags) {
    step(counts_at(place, from) || counts_at(other, to));
    return REAL(linkat)(place, from, other, to, flags);
}
