/* Faults of the file system and of the clock, planted below whatever writes: Python, Arrow, SQLite, safetensors.

   Preloaded into a process (LD_PRELOAD), it counts what happens to files below one folder. Two counters: [0] for all
   that changes something (an open for writing, a write, a rename, a link, a folder made, a file removed), [1] for opens
   for reading. At the n-th event the fault begins. It is set by fault_arm(), or, in processes that inherit it, by the
   environment: FAULT_ROOT, FAULT_KIND, FAULT_AT, FAULT_SECONDS and FAULT_COUNTER, a file of 16 bytes in which several
   processes count together. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { NONE, COUNT, KILLED, DISK_FULL, READ_ONLY, READ_ERROR, CLOCK_BACK };
enum { MAKES_NEW = 1, NEEDS_NOTHING = 2 }; /* of a change: it takes space; it does not */

static int kind = NONE;
static long at, seconds;
static char root[4096];
static long own[2];
static long *count = own;
static char written_to[65536];

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

void fault_arm(const char *where, int what, long when, long back) {
    snprintf(root, sizeof root, "%s", where);
    count[0] = count[1] = 0;
    at = when;
    seconds = back;
    kind = what;
}

long fault_count(int which) { return count[which]; }

__attribute__((constructor)) static void inherit(void) {
    const char *where = getenv("FAULT_ROOT"), *file = getenv("FAULT_COUNTER");
    if (!where || !file) return;
    int fd = open(file, O_RDWR);
    if (fd < 0) return;
    void *shared = mmap(NULL, sizeof own, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared == MAP_FAILED) return;
    count = shared;
    snprintf(root, sizeof root, "%s", where);
    at = atol(getenv("FAULT_AT") ? getenv("FAULT_AT") : "0");
    seconds = atol(getenv("FAULT_SECONDS") ? getenv("FAULT_SECONDS") : "0");
    kind = atoi(getenv("FAULT_KIND") ? getenv("FAULT_KIND") : "0");
}

static int below(int folder, const char *path) {
    char whole[8192];
    if (kind == NONE || !path) return 0;
    if (path[0] != '/') {
        char link[64], base[4096];
        if (folder == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            ssize_t length = readlink(link, base, sizeof base - 1);
            if (length < 0) return 0;
            base[length] = 0;
        }
        snprintf(whole, sizeof whole, "%s/%s", base, path);
        path = whole;
    }
    size_t length = strlen(root);
    return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int begun(void) { return __atomic_load_n(&count[0], __ATOMIC_SEQ_CST) >= at; }

static void die(void) {
    kill(getpid(), SIGKILL);
    pause();
}

/* One change; returns an error number where it fails. */
static int change(int takes) {
    long now = __atomic_add_fetch(&count[0], 1, __ATOMIC_SEQ_CST);
    if (now < at) return 0;
    if (kind == KILLED && now == at) die();
    if (kind == DISK_FULL && takes == MAKES_NEW) return ENOSPC;
    if (kind == READ_ONLY) return EROFS;
    return 0;
}

static int opening(int folder, const char *path, int flags, int exists) {
    if (!below(folder, path)) return 0;
    if (flags & O_DIRECTORY) return 0;
    if ((flags & O_ACCMODE) == O_RDONLY) {
        long now = __atomic_add_fetch(&count[1], 1, __ATOMIC_SEQ_CST);
        return kind == READ_ERROR && now == at ? EIO : 0;
    }
    return change(exists ? NEEDS_NOTHING : MAKES_NEW);
}

static int opened(int fd, int folder, const char *path, int flags) {
    if (fd >= 0 && fd < (int)sizeof written_to)
        written_to[fd] = (flags & O_ACCMODE) != O_RDONLY && below(folder, path);
    return fd;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        int failed = opening(AT_FDCWD, path, flags, access(path, F_OK) == 0); \
        if (failed) { errno = failed; return -1; } \
        return opened(real(path, flags, mode), AT_FDCWD, path, flags); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        int failed = opening(folder, path, flags, faccessat(folder, path, F_OK, 0) == 0); \
        if (failed) { errno = failed; return -1; } \
        return opened(real(folder, path, flags, mode), folder, path, flags); \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { \
        REAL(name); \
        int flags = strpbrk(mode, "wa+") ? O_WRONLY : O_RDONLY; \
        int failed = opening(AT_FDCWD, path, flags, access(path, F_OK) == 0); \
        if (failed) { errno = failed; return NULL; } \
        return real(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)

int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd < (int)sizeof written_to) written_to[fd] = 0;
    return real(fd);
}

static int watched(int fd) { return kind != NONE && fd >= 0 && fd < (int)sizeof written_to && written_to[fd]; }

/* A killed or filled write has got half way. */
ssize_t write(int fd, const void *data, size_t length) {
    REAL(write);
    if (watched(fd)) {
        if ((kind == KILLED || kind == DISK_FULL) && count[0] + 1 == at && length > 1) real(fd, data, length / 2);
        int failed = change(MAKES_NEW);
        if (failed) { errno = failed; return -1; }
    }
    return real(fd, data, length);
}

#define PWRITE(name, type) \
    ssize_t name(int fd, const void *data, size_t length, type offset) { \
        REAL(name); \
        if (watched(fd)) { \
            if ((kind == KILLED || kind == DISK_FULL) && count[0] + 1 == at && length > 1) \
                real(fd, data, length / 2, offset); \
            int failed = change(MAKES_NEW); \
            if (failed) { errno = failed; return -1; } \
        } \
        return real(fd, data, length, offset); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int number) {
    REAL(writev);
    int failed = watched(fd) ? change(MAKES_NEW) : 0;
    if (failed) { errno = failed; return -1; }
    return real(fd, parts, number);
}

#define CHANGE(result, name, parameters, arguments, where, takes) \
    result name parameters { \
        REAL(name); \
        int failed = (where) ? change(takes) : 0; \
        if (failed) { errno = failed; return -1; } \
        return real arguments; \
    }
CHANGE(int, rename, (const char *from, const char *to), (from, to), below(AT_FDCWD, to), NEEDS_NOTHING)
CHANGE(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), below(b, to), NEEDS_NOTHING)
CHANGE(int, link, (const char *from, const char *to), (from, to), below(AT_FDCWD, to), MAKES_NEW)
CHANGE(int, linkat, (int a, const char *from, int b, const char *to, int f), (a, from, b, to, f), below(b, to), MAKES_NEW)
CHANGE(int, symlink, (const char *from, const char *to), (from, to), below(AT_FDCWD, to), MAKES_NEW)
CHANGE(int, mkdir, (const char *path, mode_t mode), (path, mode), below(AT_FDCWD, path), MAKES_NEW)
CHANGE(int, mkdirat, (int a, const char *path, mode_t mode), (a, path, mode), below(a, path), MAKES_NEW)
CHANGE(int, unlink, (const char *path), (path), below(AT_FDCWD, path), NEEDS_NOTHING)
CHANGE(int, unlinkat, (int a, const char *path, int f), (a, path, f), below(a, path), NEEDS_NOTHING)
CHANGE(int, rmdir, (const char *path), (path), below(AT_FDCWD, path), NEEDS_NOTHING)
CHANGE(int, ftruncate, (int fd, off_t length), (fd, length), watched(fd), NEEDS_NOTHING)

static long set_back(void) { return kind == CLOCK_BACK && begun() ? seconds : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec -= set_back();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    REAL(gettimeofday);
    int failed = real(now, zone);
    if (!failed) now->tv_sec -= set_back();
    return failed;
}

time_t time(time_t *place) {
    REAL(time);
    time_t now = real(NULL) - set_back();
    if (place) *place = now;
    return now;
}
