/* Preloaded into a process (LD_PRELOAD): counts the calls of libc that are system calls about files, memory and locks.
 *
 * calls_reset() begins anew; calls_report(text, size) writes "name number" and a newline for each that was called.
 *
 * No header that declares them is included: each is passed on with six words as they came, whatever it takes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { MOST = 64 };
static const char *names[MOST];
static uint64_t counts[MOST];
static int many;

void calls_reset(void) { memset(counts, 0, sizeof counts); }

void calls_report(char *text, size_t size) {
    size_t at = 0;
    text[0] = 0;
    for (int number = 0; number < many; number++)
        if (counts[number] && at < size)
            at += snprintf(text + at, size - at, "%s %lu\n", names[number], (unsigned long)counts[number]);
}

#define WRAP(name)                                                                     \
    static long (*real_##name)(long, long, long, long, long, long);                    \
    static int number_##name;                                                          \
    __attribute__((constructor)) static void find_##name(void) {                       \
        real_##name = (long (*)(long, long, long, long, long, long))dlsym(RTLD_NEXT, #name); \
        names[many] = #name;                                                           \
        number_##name = many++;                                                        \
    }                                                                                  \
    long name(long a, long b, long c, long d, long e, long f) {                        \
        if (!real_##name) find_##name();                                               \
        __atomic_add_fetch(&counts[number_##name], 1, __ATOMIC_RELAXED);               \
        return real_##name(a, b, c, d, e, f);                                          \
    }

WRAP(open) WRAP(open64) WRAP(openat) WRAP(openat64) WRAP(close) WRAP(read) WRAP(pread) WRAP(pread64) WRAP(write)
WRAP(pwrite) WRAP(pwrite64) WRAP(writev) WRAP(pwritev) WRAP(pwritev64) WRAP(fsync) WRAP(fdatasync) WRAP(msync)
WRAP(ftruncate) WRAP(ftruncate64) WRAP(fallocate) WRAP(fcntl) WRAP(fcntl64) WRAP(flock) WRAP(lseek) WRAP(lseek64)
WRAP(mmap) WRAP(mmap64) WRAP(munmap) WRAP(mremap) WRAP(madvise) WRAP(stat) WRAP(stat64) WRAP(fstat) WRAP(fstat64)
WRAP(lstat) WRAP(lstat64) WRAP(fstatat) WRAP(fstatat64) WRAP(statfs) WRAP(statfs64)
