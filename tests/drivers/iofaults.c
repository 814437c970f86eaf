/* Preloaded into a process (LD_PRELOAD): lets chosen calls fail that change files below one folder.
 *
 * IOFAULTS_FOLDER   the folder, as an absolute path without links
 * IOFAULTS_CONTROL  a file, mapped here and in the driver, that says what to do; see struct control and shim.py
 *
 * Whether a descriptor is below the folder is asked of /proc at each call: descriptors are duplicated and inherited.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#undef open64
#undef openat64
#undef pwrite64
#undef pwritev64
#undef ftruncate64

/* The numbers are known to shim.py. */
enum mode { COUNT, EIO_, ENOSPC_, SHORT, DIE_BEFORE, DIE_AFTER, TEAR, LIE, SLOW };
enum call { NONE, OPEN, WRITE, PWRITE, WRITEV, PWRITEV, FDATASYNC, FSYNC, MSYNC, FTRUNCATE, RENAME, MKDIR };
enum verdict { GO, FAIL, HALF, HALF_AND_DIE, GO_AND_DIE, PRETEND };

struct control {
    uint32_t armed;
    uint32_t mode;
    uint32_t sticky; /* every call from the chosen one on */
    uint32_t at;     /* the chosen call; the first is 1. SLOW: milliseconds that each sync takes */
    uint32_t count;  /* calls since it was armed */
    uint32_t fired;  /* faults since it was armed. SLOW: syncs by the main thread */
    uint32_t call;   /* what the first fault hit, an enum call */
    uint32_t then;   /* what the note was then */
    uint32_t note;   /* the driver's own number */
    char path[476];  /* the file that the first fault hit */
};

static struct control *control;
static const char *folder;
static size_t folder_size;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("IOFAULTS_CONTROL");
    folder = getenv("IOFAULTS_FOLDER");
    if (!name || !folder) return;
    folder_size = strlen(folder);
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int fd = real(name, O_RDWR | O_CLOEXEC);
    if (fd < 0) _exit(99);
    void *map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) _exit(99);
    control = map;
}

static int below(const char *path) { return path && !strncmp(path, folder, folder_size); }

static int path_of(int fd, char *path, size_t size) {
    char name[40];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, size - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0;
}

/* Only syncs count here. */
static enum verdict slow_down(enum call call) {
    if (call == FDATASYNC || call == FSYNC || call == MSYNC) {
        __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
        if (syscall(SYS_gettid) == getpid()) __atomic_add_fetch(&control->fired, 1, __ATOMIC_SEQ_CST);
        usleep(1000 * control->at);
    }
    return GO;
}

static enum verdict judge(enum call call, const char *path) {
    if (!control || !control->armed || !below(path)) return GO;
    if (control->mode == SLOW) return slow_down(call);
    uint32_t count = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
    if (control->mode == LIE) return call == FDATASYNC || call == FSYNC || call == MSYNC ? PRETEND : GO;
    if (control->mode == COUNT || (control->sticky ? count < control->at : count != control->at)) return GO;
    if (__atomic_fetch_add(&control->fired, 1, __ATOMIC_SEQ_CST) == 0) {
        control->call = call;
        control->then = control->note;
        strncpy(control->path, path, sizeof control->path - 1);
    }
    int writes = call == WRITE || call == PWRITE || call == WRITEV || call == PWRITEV;
    switch (control->mode) {
    case ENOSPC_: errno = ENOSPC; return FAIL;
    case SHORT:
        if (writes) return HALF;
        errno = EIO;
        return FAIL;
    case TEAR:
        if (writes) return HALF_AND_DIE; /* fall through */
    case DIE_BEFORE: kill(getpid(), SIGKILL); /* fall through */
    case DIE_AFTER: return GO_AND_DIE;
    default: errno = EIO; return FAIL;
    }
}

static enum verdict judge_fd(enum call call, int fd) {
    char path[4096];
    int saved = errno;
    if (!control || !control->armed || !path_of(fd, path, sizeof path)) {
        errno = saved;
        return GO;
    }
    errno = saved;
    return judge(call, path);
}

static void die_if(enum verdict verdict) {
    if (verdict == GO_AND_DIE || verdict == HALF_AND_DIE) kill(getpid(), SIGKILL);
}

#define REAL(type, name, ...)                                                                                         \
    static type (*real)(__VA_ARGS__);                                                                                 \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* Writing */

#define ONE_BUFFER(call, ...)                                                                                         \
    {                                                                                                                 \
        enum verdict verdict = judge_fd(call, fd);                                                                    \
        if (verdict == FAIL) return -1;                                                                               \
        if (verdict == HALF || verdict == HALF_AND_DIE) size = size / 2;                                              \
        ssize_t done = __VA_ARGS__;                                                                                   \
        die_if(verdict);                                                                                              \
        return done;                                                                                                  \
    }

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    ONE_BUFFER(WRITE, real(fd, data, size))
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    ONE_BUFFER(PWRITE, real(fd, data, size, at))
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    ONE_BUFFER(PWRITE, real(fd, data, size, at))
}

/* Half of several buffers: half of them, or half of the only one. */
static int halve(const struct iovec *parts, int many, struct iovec *half) {
    if (many > 1) return many / 2;
    half->iov_base = parts->iov_base;
    half->iov_len = parts->iov_len / 2;
    return 0;
}

#define MANY_BUFFERS(call, ...)                                                                                       \
    {                                                                                                                 \
        struct iovec half;                                                                                            \
        enum verdict verdict = judge_fd(call, fd);                                                                    \
        if (verdict == FAIL) return -1;                                                                               \
        if ((verdict == HALF || verdict == HALF_AND_DIE) && !(many = halve(parts, many, &half))) {                    \
            parts = &half;                                                                                            \
            many = 1;                                                                                                 \
        }                                                                                                             \
        ssize_t done = __VA_ARGS__;                                                                                   \
        die_if(verdict);                                                                                              \
        return done;                                                                                                  \
    }

ssize_t writev(int fd, const struct iovec *parts, int many) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    MANY_BUFFERS(WRITEV, real(fd, parts, many))
}

ssize_t pwritev(int fd, const struct iovec *parts, int many, off_t at) {
    REAL(ssize_t, "pwritev", int, const struct iovec *, int, off_t);
    MANY_BUFFERS(PWRITEV, real(fd, parts, many, at))
}

ssize_t pwritev64(int fd, const struct iovec *parts, int many, off64_t at) {
    REAL(ssize_t, "pwritev64", int, const struct iovec *, int, off64_t);
    MANY_BUFFERS(PWRITEV, real(fd, parts, many, at))
}

/* Syncing, and the rest */

#define WHOLE(verdict_expression, ...)                                                                                \
    {                                                                                                                 \
        enum verdict verdict = verdict_expression;                                                                    \
        if (verdict == FAIL) return -1;                                                                               \
        if (verdict == PRETEND) return 0;                                                                             \
        int done = __VA_ARGS__;                                                                                       \
        die_if(verdict);                                                                                              \
        return done;                                                                                                  \
    }

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    WHOLE(judge_fd(FDATASYNC, fd), real(fd))
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    WHOLE(judge_fd(FSYNC, fd), real(fd))
}

/* A file that has that size already is not changed, and no disk is asked. */
static enum verdict judge_cut(int fd, off64_t size) {
    struct stat status;
    return !fstat(fd, &status) && status.st_size == size ? GO : judge_fd(FTRUNCATE, fd);
}

int ftruncate(int fd, off_t size) {
    REAL(int, "ftruncate", int, off_t);
    WHOLE(judge_cut(fd, size), real(fd, size))
}

int ftruncate64(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    WHOLE(judge_cut(fd, size), real(fd, size))
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    WHOLE(judge(RENAME, from), real(from, to))
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    WHOLE(judge(RENAME, from), real(from_folder, from, to_folder, to))
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    WHOLE(access(path, F_OK) ? judge(MKDIR, path) : GO, real(path, mode)) /* if it exists, nothing is to be written */
}

/* To which file a mapped address belongs. */
static int mapped(void *address, char *path, size_t size) {
    unsigned long begins, ends;
    char line[4200];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && !found && fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx", &begins, &ends) == 2 && (unsigned long)address >= begins &&
            (unsigned long)address < ends) {
            char *slash = strchr(line, '/');
            snprintf(path, size, "%s", slash ? slash : "");
            found = slash != NULL;
        }
    if (maps) fclose(maps);
    return found;
}

int msync(void *address, size_t size, int flags) {
    REAL(int, "msync", void *, size_t, int);
    char path[4096];
    int ours = control && control->armed && mapped(address, path, sizeof path);
    WHOLE(ours ? judge(MSYNC, path) : GO, real(address, size, flags))
}

static int flags_for(const char *path, int flags) {
    if (control && control->armed && control->mode == LIE && below(path)) return flags & ~(O_DSYNC | O_SYNC);
    return flags;
}

/* Opening may make a file, and that fails. What is there can still be opened on a disk that fails for ever. */
static int may_make(const char *path, int flags) {
    int saved = errno;
    int makes = (flags & O_CREAT) && !(control && control->sticky && !access(path, F_OK));
    errno = saved;
    return makes;
}

#define OPENING(...)                                                                                                  \
    mode_t mode = 0;                                                                                                  \
    if (flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) {                                                             \
        va_list rest;                                                                                                 \
        va_start(rest, flags);                                                                                        \
        mode = va_arg(rest, mode_t);                                                                                  \
        va_end(rest);                                                                                                 \
    }                                                                                                                 \
    flags = flags_for(path, flags);                                                                                   \
    WHOLE(may_make(path, flags) ? judge(OPEN, path) : GO, __VA_ARGS__)

int open(const char *path, int flags, ...) {
    REAL(int, "open", const char *, int, ...);
    OPENING(real(path, flags, mode))
}

int open64(const char *path, int flags, ...) {
    REAL(int, "open64", const char *, int, ...);
    OPENING(real(path, flags, mode))
}

int openat(int place, const char *path, int flags, ...) {
    REAL(int, "openat", int, const char *, int, ...);
    OPENING(real(place, path, flags, mode))
}

int openat64(int place, const char *path, int flags, ...) {
    REAL(int, "openat64", int, const char *, int, ...);
    OPENING(real(place, path, flags, mode))
}
