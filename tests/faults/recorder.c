/* Preloaded into a process, this writes down, in $RECORD, what it does to the files below $BELOW: one line an operation,
   `operation path [other path]`. A write, and a change of names, is written down when it is done; a sync when it begins
   (`syncing`) and when it ends (`synced`), because only what was done before it began is on the disk when it ends.
   What is written to a journal, or as the value of a ref, follows its line, after a tab.
   The first link whose target contains $PAUSE stops the process before it is made. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *below, *pause_at;
static int record = -1;
static pid_t owner;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("RECORD");
    below = getenv("BELOW");
    pause_at = getenv("PAUSE");
    if (path == NULL || below == NULL) return;
    record = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    owner = getpid();
}

static int whole(int place, const char *path, char *joined) {
    char link[64];
    ssize_t length;
    if (record < 0 || owner != getpid() || path == NULL) return 0;
    if (path[0] == '/') snprintf(joined, PATH_MAX, "%s", path);
    else {
        if (place == AT_FDCWD) {
            if (getcwd(joined, PATH_MAX) == NULL) return 0;
            length = (ssize_t)strlen(joined);
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", place);
            if ((length = readlink(link, joined, PATH_MAX - 1)) < 0) return 0;
        }
        snprintf(joined + length, PATH_MAX - length, "/%s", path);
    }
    return strncmp(joined, below, strlen(below)) == 0;
}

static int of_file(int file, char *path) {
    char link[64];
    ssize_t length;
    if (record < 0 || owner != getpid()) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    if ((length = readlink(link, path, PATH_MAX - 1)) < 0) return 0;
    path[length] = '\0';
    return strncmp(path, below, strlen(below)) == 0;
}

static void note(const char *what, const char *one, const char *other) {
    char line[3 * PATH_MAX];
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\n", what, one, other);
    syscall(SYS_write, record, line, (size_t)length);
}

#define OPENING(mode_of)                                                                        \
    mode_t mode = 0;                                                                            \
    char path[PATH_MAX];                                                                        \
    int counts = flags & (O_CREAT | O_TRUNC) && whole(mode_of, name, path);                     \
    int fresh = counts && access(path, F_OK) != 0;                                              \
    if (flags & (O_CREAT | __O_TMPFILE)) {                                                      \
        va_list rest;                                                                           \
        va_start(rest, flags);                                                                  \
        mode = va_arg(rest, mode_t);                                                            \
        va_end(rest);                                                                           \
    }

#define OPEN(function)                                                                          \
    int function(const char *name, int flags, ...) {                                            \
        OPENING(AT_FDCWD)                                                                       \
        int file = REAL(function)(name, flags, mode);                                           \
        if (counts && file >= 0) note(fresh ? "create" : "cut", path, "");                      \
        return file;                                                                            \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(function)                                                                        \
    int function(int place, const char *name, int flags, ...) {                                 \
        OPENING(place)                                                                          \
        int file = REAL(function)(place, name, flags, mode);                                    \
        if (counts && file >= 0) note(fresh ? "create" : "cut", path, "");                      \
        return file;                                                                            \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int file, const void *bytes, size_t length) {
    char path[PATH_MAX], text[PATH_MAX];
    ssize_t done = REAL(write)(file, bytes, length);
    if (done > 0 && of_file(file, path)) {
        size_t shown = 0;
        if (strstr(path, "/journal-") || strstr(path, "/ref-"))
            for (; shown < (size_t)done && shown < sizeof text - 1; shown++) {
                char each = ((const char *)bytes)[shown];
                text[shown] = each == '\n' || each == '\t' ? ' ' : each;
            }
        text[shown] = '\0';
        note("write", path, text);
    }
    return done;
}

#define SYNC(function)                                                                          \
    int function(int file) {                                                                    \
        char path[PATH_MAX];                                                                    \
        int counts = of_file(file, path);                                                       \
        if (counts) note("syncing", path, "");                                                  \
        int done = REAL(function)(file);                                                        \
        if (counts && done == 0) note("synced", path, "");                                      \
        return done;                                                                            \
    }
SYNC(fsync)
SYNC(fdatasync)

#define ON_PATH(function, rest, values, what)                                                   \
    int function(const char *name rest) {                                                       \
        char path[PATH_MAX];                                                                    \
        int counts = whole(AT_FDCWD, name, path), done = REAL(function)(name values);           \
        if (counts && done == 0) note(what, path, "");                                          \
        return done;                                                                            \
    }
#define AND ,
ON_PATH(unlink, , , "remove")
ON_PATH(rmdir, , , "remove")
ON_PATH(mkdir, AND mode_t mode, AND mode, "mkdir")

int unlinkat(int place, const char *name, int flags) {
    char path[PATH_MAX];
    int counts = whole(place, name, path), done = REAL(unlinkat)(place, name, flags);
    if (counts && done == 0) note("remove", path, "");
    return done;
}

#define ON_PATHS(function, what)                                                                \
    int function(const char *from, const char *to) {                                            \
        char one[PATH_MAX], other[PATH_MAX];                                                    \
        int counts = whole(AT_FDCWD, to, other) && whole(AT_FDCWD, from, one);                  \
        if (counts && pause_at && strcmp(what, "link") == 0 && strstr(other, pause_at)) {       \
            pause_at = NULL;                                                                    \
            note("paused", one, other);                                                         \
            raise(SIGSTOP);                                                                     \
        }                                                                                       \
        int done = REAL(function)(from, to);                                                    \
        if (counts && done == 0) note(what, one, other);                                        \
        return done;                                                                            \
    }
ON_PATHS(rename, "rename")
ON_PATHS(link, "link")

int linkat(int place, const char *from, int other_place, const char *to, int flags) {
    char one[PATH_MAX], other[PATH_MAX];
    int counts = whole(other_place, to, other) && whole(place, from, one);
    if (counts && pause_at && strstr(other, pause_at)) {
        pause_at = NULL;
        note("paused", one, other);
        raise(SIGSTOP);
    }
    int done = REAL(linkat)(place, from, other_place, to, flags);
    if (counts && done == 0) note("link", one, other);
    return done;
}
