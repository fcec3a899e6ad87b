/* Files compressed by gzip (RFC 1952), one member. */
#ifndef CNNC_RUNTIME_GZIP_H
#define CNNC_RUNTIME_GZIP_H

#include <stdbool.h>

#include "files.h"

bool gzip_recognise(const bytes *file);

/* The expanded contents, checksum and size verified; frees `file.data`. */
bytes gzip_expand(const char *path, bytes file);

#endif
