/*
 * Makes every flush of the process slower, as a disk on a network does.
 *
 * Loaded with LD_PRELOAD. KEYWHEEL_FLUSH_DELAY_MS says how many milliseconds each call of fsync, fdatasync,
 * msync (MS_SYNC) and sync_file_range takes longer; without it nothing changes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>

static long delay_ms = -1;

static void delay(void) {
    if (delay_ms < 0) {
        const char *text = getenv("KEYWHEEL_FLUSH_DELAY_MS");
        delay_ms = text ? strtol(text, NULL, 10) : 0;
    }
    if (delay_ms > 0) {
        struct timespec left = {delay_ms / 1000, (delay_ms % 1000) * 1000000L};
        while (nanosleep(&left, &left) != 0) {
        }
    }
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    delay();
    return real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    delay();
    return real(fd);
}

int msync(void *start, size_t length, int flags) {
    static int (*real)(void *, size_t, int);
    if (!real) real = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "msync");
    if (flags & MS_SYNC) delay();
    return real(start, length, flags);
}

int sync_file_range(int fd, off_t offset, off_t length, unsigned int flags) {
    static int (*real)(int, off_t, off_t, unsigned int);
    if (!real) real = (int (*)(int, off_t, off_t, unsigned int))dlsym(RTLD_NEXT, "sync_file_range");
    delay();
    return real(fd, offset, length, flags);
}
