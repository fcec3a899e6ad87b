/* Decompression of deflate data (RFC 1951), safe on any input. */
#ifndef CNNC_RUNTIME_INFLATE_H
#define CNNC_RUNTIME_INFLATE_H

#include <stddef.h>

/* Expands `in` to exactly `out_size` bytes and sets *consumed to the bytes of `in` it took. Returns
   NULL, or what is wrong with the data. */
const char *inflate(const unsigned char *in, size_t in_size, unsigned char *out, size_t out_size,
                    size_t *consumed);

#endif
