#define _POSIX_C_SOURCE 200809L

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "memory.h"

/* The size to start with: the file's own plus one byte, so that one read finds its end. */
static size_t first_capacity(int descriptor) {
    struct stat status;
    if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) return 1 << 16;
    if ((uintmax_t)status.st_size >= SIZE_MAX) return 1 << 16;
    return (size_t)status.st_size + 1;
}

static void grow(const char *path, bytes *file, size_t *capacity) {
    if (file->size < *capacity) return;
    if (*capacity > SIZE_MAX / 2) fail(path, "too large for this machine's memory");
    *capacity *= 2;
    unsigned char *larger = realloc(file->data, *capacity);
    if (larger == NULL) fail(path, "out of memory: %zu bytes wanted", *capacity);
    file->data = larger;
}

bytes file_read(const char *path) {
    int descriptor = open(path, O_RDONLY);
    if (descriptor < 0) fail(path, "cannot be opened: %s", strerror(errno));
    size_t capacity = first_capacity(descriptor);
    bytes file = {memory_array(capacity, 1), 0};
    for (;;) {
        grow(path, &file, &capacity);
        ssize_t got = read(descriptor, file.data + file.size, capacity - file.size);
        if (got == 0) break;
        if (got > 0) file.size += (size_t)got;
        if (got < 0 && errno != EINTR) fail(path, "cannot be read: %s", strerror(errno));
    }
    (void)close(descriptor);
    return file;
}

static bool write_parts(int descriptor, const file_part *parts, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const unsigned char *data = parts[i].data;
        size_t left = parts[i].size;
        while (left > 0) {
            ssize_t written = write(descriptor, data, left);
            if (written < 0 && errno == EINTR) continue;
            if (written < 0) return false;
            data += written;
            left -= (size_t)written;
        }
    }
    return true;
}

static bool is_special(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
}

static void write_special(const char *path, const file_part *parts, size_t count) {
    int descriptor = open(path, O_WRONLY);
    if (descriptor < 0) fail(path, "cannot be written: %s", strerror(errno));
    if (!write_parts(descriptor, parts, count)) fail(path, "cannot be written: %s", strerror(errno));
    if (close(descriptor) != 0) fail(path, "cannot be written: %s", strerror(errno));
}

/* Creates a file beside `path` that did not exist; its name, released with free, goes to *name. */
static int create_beside(const char *path, char **name) {
    size_t capacity = strlen(path) + 64;
    *name = memory_array(capacity, 1);
    for (int attempt = 0; attempt < 100; attempt++) {
        (void)snprintf(*name, capacity, "%s.%ld-%d.tmp", path, (long)getpid(), attempt);
        int descriptor = open(*name, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (descriptor >= 0) return descriptor;
        if (errno != EEXIST) break;
    }
    free(*name);
    fail(path, "cannot be written: %s", strerror(errno));
}

/* While a temporary file exists, signals that end the program wait, and a file size limit is an
   ordinary write error. Returns the signals that were blocked before. */
static sigset_t hold_signals(void) {
    sigset_t held, before;
    (void)sigemptyset(&held);
    (void)sigaddset(&held, SIGINT);
    (void)sigaddset(&held, SIGTERM);
    (void)sigaddset(&held, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &held, &before);
    (void)signal(SIGXFSZ, SIG_IGN);
    return before;
}

void file_write(const char *path, const file_part *parts, size_t count) {
    if (is_special(path)) {
        write_special(path, parts, count);
        return;
    }
    sigset_t before = hold_signals();
    char *name = NULL;
    int descriptor = create_beside(path, &name);
    bool good = write_parts(descriptor, parts, count) && fsync(descriptor) == 0;
    int error = errno;
    if (close(descriptor) != 0 && good) {
        good = false;
        error = errno;
    }
    if (good && rename(name, path) != 0) {
        good = false;
        error = errno;
    }
    if (!good) (void)unlink(name);
    free(name);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    if (!good) fail(path, "cannot be written: %s", strerror(error));
}

void file_check_writable(const char *path) {
    if (is_special(path)) return;
    struct stat status;
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode))
        fail(path, "cannot be written: %s", strerror(EISDIR));
    sigset_t before = hold_signals();
    char *name = NULL;
    int descriptor = create_beside(path, &name);
    (void)close(descriptor);
    (void)unlink(name);
    free(name);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
}
