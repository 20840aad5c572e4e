/* A disk that fails on demand, preloaded: what fails is chosen by files in the folder $FAULTS.
 * Only calls on the files of a journal are touched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *faults;
__attribute__((constructor)) static void begin(void) { faults = getenv("FAULTS"); }

/* Whether fd is a journal's file, for which `what` is asked for; `once` takes the wish away. */
static int asked(int fd, const char *what, int once, char *path)
{
    char link[64], flag[4096];
    ssize_t length;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (!faults || (length = readlink(link, path, 4095)) < 0) return 0;
    path[length] = 0;
    if (!strstr(path, "/journal-")) return 0;
    snprintf(flag, sizeof flag, "%s/%s", faults, what);
    return (once ? unlink(flag) : access(flag, F_OK)) == 0;
}

ssize_t write(int fd, const void *content, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    char path[4096];
    int before = errno;
    if (!real) real = dlsym(RTLD_NEXT, "write");
    while (asked(fd, "write-stalls", 0, path)) usleep(5000);
    if (asked(fd, "write-breaks", 0, path)) { errno = EIO; return -1; }
    if (asked(fd, "write-fails-halfway", 1, path)) { real(fd, content, size / 2); errno = EIO; return -1; }
    errno = before;
    return real(fd, content, size);
}

/* What a failed sync had to write may be lost: here it loses all from $FAULTS/synced on but the last third. */
static void lose(const char *path)
{
    char name[4096], text[32] = "0";
    struct stat there;
    int fd, length;
    snprintf(name, sizeof name, "%s/synced", faults);
    if ((fd = open(name, O_RDONLY)) >= 0) { if (read(fd, text, 31) < 0) abort(); close(fd); }
    if ((fd = open(path, O_WRONLY)) < 0 || fstat(fd, &there)) abort();
    length = (there.st_size - atoi(text)) * 2 / 3;
    for (int place = 0; place < length; place++) if (pwrite(fd, "", 1, atoi(text) + place) != 1) abort();
    close(fd);
}

int fdatasync(int fd)
{
    static int (*real)(int);
    char path[4096];
    int before = errno;
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    while (asked(fd, "sync-stalls", 0, path)) usleep(5000);
    if (asked(fd, "sync-fails", 1, path)) { lose(path); errno = EIO; return -1; }
    if (asked(fd, "sync-finds-no-space", 1, path)) { lose(path); errno = ENOSPC; return -1; }
    errno = before;
    return real(fd);
}
