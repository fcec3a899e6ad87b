/* Files, read whole and written whole or not at all. */
#ifndef CNNC_RUNTIME_FILES_H
#define CNNC_RUNTIME_FILES_H

#include <stddef.h>

/* The contents of a file; `data` is released with free. */
typedef struct {
    unsigned char *data;
    size_t size;
} bytes;

/* A stretch of memory to write; a file is written from several. */
typedef struct {
    const void *data;
    size_t size;
} file_part;

bytes file_read(const char *path);

/* Writes the parts one after the other to a new file beside `path` and renames it, so that `path`
   holds either all of it or what it held before. Devices and pipes are written directly. */
void file_write(const char *path, const file_part *parts, size_t count);

/* Fails unless file_write(path) could begin: asked before work whose result would be lost. */
void file_check_writable(const char *path);

#endif
