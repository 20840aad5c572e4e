/* Preloaded into a process, this counts the file operations below one folder, and at one of them sends the process a
   signal, cuts the power of the file system, or lets the operation fail, once or from then on: every point where the
   disk can differ. Operations of other processes (a `git` child) do not count. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* What kind an operation is; `_driver.py` knows these numbers. */
enum { CHANGES = 1, OPENS = 2, READS = 4, GROWS = 8 };

static char folder[PATH_MAX], only[PATH_MAX], disk[PATH_MAX];
static atomic_long count, deadly;
static atomic_int half, number, kinds, failure, lasting, slowness;
static int cut_flags;
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
    kinds = CHANGES;
    failure = 0;
    disk[0] = '\0';
    owner = getpid();
}

/* Instead of the signal, let the operation fail with ERROR, and FOREVER all that follow; count those of kind AMONG. */
void killer_fail(int error, int forever, int among) {
    failure = error;
    lasting = forever;
    kinds = among;
}

/* Before the signal, cut the power of the file system mounted at PLACE, see ext4_ioctl_shutdown in fs/ext4/ioctl.c. */
void killer_cut(const char *place, int flags) {
    snprintf(disk, sizeof disk, "%s", place);
    cut_flags = flags;
}

/* Let every sync below the folder take that many microseconds longer. */
void killer_slow(int microseconds) { slowness = microseconds; }

void killer_heal(void) { deadly = 0; }
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

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_due(int kind, int counted) {
    long now;
    if (!counted || !(kind & kinds)) return 0;
    now = atomic_fetch_add(&count, 1) + 1;
    return deadly && (now == deadly || (failure && lasting && now > deadly));
}

/* The operation is not made: the process ends, or learns of an error. */
static int refuse(void) {
    if (failure) {
        errno = failure;
        return 1;
    }
    if (disk[0]) {
        int place = REAL(open)(disk, O_RDONLY | O_DIRECTORY);
        if (place >= 0) ioctl(place, _IOR('X', 125, unsigned), &cut_flags);
    }
    raise(number); /* at this thread: it is not to take another step */
    return 0;
}

static int is_refused(int kind, int counted) {
    int before = errno;
    int refused = is_due(kind, counted) && refuse();
    if (!refused) errno = before;
    return refused;
}

#define WRITES(flags) ((flags) & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC))
#define OPENING(flags) (OPENS | (WRITES(flags) ? CHANGES : READS) | ((flags) & O_CREAT ? GROWS : 0))
#define MODE(flags)                                        \
    mode_t mode = 0;                                       \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {               \
        va_list rest;                                      \
        va_start(rest, flags);                             \
        mode = va_arg(rest, mode_t);                       \
        va_end(rest);                                      \
    }

#define OPEN(name)                                                                    \
    int name(const char *path, int flags, ...) {                                      \
        MODE(flags)                                                                   \
        if (is_refused(OPENING(flags), counts_at(AT_FDCWD, path))) return -1;         \
        return REAL(name)(path, flags, mode);                                         \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                  \
    int name(int place, const char *path, int flags, ...) {                           \
        MODE(flags)                                                                   \
        if (is_refused(OPENING(flags), counts_at(place, path))) return -1;            \
        return REAL(name)(place, path, flags, mode);                                  \
    }
OPENAT(openat)
OPENAT(openat64)

DIR *opendir(const char *path) {
    if (is_refused(OPENS | READS, counts_at(AT_FDCWD, path))) return NULL;
    return REAL(opendir)(path);
}

ssize_t write(int file, const void *bytes, size_t length) {
    int before = errno;
    if (is_due(CHANGES | GROWS, counts_fd(file))) {
        if (half) REAL(write)(file, bytes, length / 2);
        if (refuse()) return -1;
    }
    errno = before;
    return REAL(write)(file, bytes, length);
}

#define ON_FILE(kind, type, name, rest, values)                             \
    type name(int file rest) {                                              \
        if (is_refused(kind, counts_fd(file))) return -1;                   \
        return REAL(name)(file values);                                     \
    }
#define AND ,
ON_FILE(CHANGES | GROWS, ssize_t, writev, AND const struct iovec *parts AND int many, AND parts AND many)
ON_FILE(CHANGES | GROWS, ssize_t, pwrite, AND const void *bytes AND size_t length AND off_t place, AND bytes AND length AND place)
ON_FILE(CHANGES | GROWS, ssize_t, pwrite64, AND const void *bytes AND size_t length AND off64_t place, AND bytes AND length AND place)
ON_FILE(CHANGES, int, ftruncate, AND off_t length, AND length)
ON_FILE(CHANGES, int, ftruncate64, AND off64_t length, AND length)
ON_FILE(READS, ssize_t, read, AND void *bytes AND size_t length, AND bytes AND length)
ON_FILE(READS, ssize_t, pread, AND void *bytes AND size_t length AND off_t place, AND bytes AND length AND place)
ON_FILE(READS, ssize_t, pread64, AND void *bytes AND size_t length AND off64_t place, AND bytes AND length AND place)

#define ON_SYNC(name)                                                       \
    int name(int file) {                                                    \
        int counted = counts_fd(file);                                      \
        if (is_refused(CHANGES | GROWS, counted)) return -1;                \
        if (slowness && counted) usleep((useconds_t)slowness);              \
        return REAL(name)(file);                                            \
    }
ON_SYNC(fsync)
ON_SYNC(fdatasync)
ON_SYNC(syncfs)

#define ON_PATH(kind, name, rest, values)                                   \
    int name(const char *path rest) {                                       \
        if (is_refused(kind, counts_at(AT_FDCWD, path))) return -1;         \
        return REAL(name)(path values);                                     \
    }
ON_PATH(CHANGES, unlink, , )
ON_PATH(CHANGES, rmdir, , )
ON_PATH(CHANGES | GROWS, mkdir, AND mode_t mode, AND mode)
ON_PATH(CHANGES, truncate, AND off_t length, AND length)

int unlinkat(int place, const char *path, int flags) {
    if (is_refused(CHANGES, counts_at(place, path))) return -1;
    return REAL(unlinkat)(place, path, flags);
}

int mkdirat(int place, const char *path, mode_t mode) {
    if (is_refused(CHANGES | GROWS, counts_at(place, path))) return -1;
    return REAL(mkdirat)(place, path, mode);
}

#define ON_PATHS(name)                                                                                          \
    int name(const char *from, const char *to) {                                                                \
        if (is_refused(CHANGES | GROWS, counts_at(AT_FDCWD, from) || counts_at(AT_FDCWD, to))) return -1;       \
        return REAL(name)(from, to);                                                                            \
    }
ON_PATHS(rename)
ON_PATHS(link)

int renameat(int place, const char *from, int other, const char *to) {
    if (is_refused(CHANGES | GROWS, counts_at(place, from) || counts_at(other, to))) return -1;
    return REAL(renameat)(place, from, other, to);
}

int renameat2(int place, const char *from, int other, const char *to, unsigned flags) {
    if (is_refused(CHANGES | GROWS, counts_at(place, from) || counts_at(other, to))) return -1;
    return REAL(renameat2)(place, from, other, to, flags);
}

int linkat(int place, const char *from, int other, const char *to, int flags) {
    if (is_refused(CHANGES | GROWS, counts_at(place, from) || counts_at(other, to))) return -1;
    return REAL(linkat)(place, from, other, to, flags);
}
