#include "idx.h"

#include <stdio.h>

#include "error.h"

enum { UNSIGNED_BYTE = 8, PREFIX = 4 };

bool idx_recognise(const bytes *file) { return file->size >= 2 && file->data[0] == 0 && file->data[1] == 0; }

array idx_parse(const char *path, bytes file) {
    if (file.size < PREFIX || !idx_recognise(&file)) fail(path, "truncated: the IDX header is not complete");
    if (file.data[2] != UNSIGNED_BYTE)
        fail(path, "IDX element type 0x%02x, expected 0x08 (unsigned bytes)", file.data[2]);
    unsigned rank = file.data[3];
    if (rank > TENSOR_MAX_RANK) fail(path, "has %u axes, at most %d are supported", rank, TENSOR_MAX_RANK);
    size_t start = PREFIX + 4 * (size_t)rank;
    if (file.size < start) fail(path, "truncated: the IDX header is not complete");
    array a = {.type = ARRAY_UINT8, .rank = (int)rank, .file = file};
    (void)snprintf(a.type_name, sizeof a.type_name, "uint8");
    for (unsigned i = 0; i < rank; i++) {
        const unsigned char *p = file.data + PREFIX + 4 * (size_t)i;
        a.shape[i] = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | (size_t)p[3];
    }
    array_attach(path, &a, start);
    return a;
}
