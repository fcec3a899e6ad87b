/* The order of the training images: splitmix64 and Fisher-Yates, the same as cnnc/shuffle.py. */
#ifndef CNNC_RUNTIME_SHUFFLE_H
#define CNNC_RUNTIME_SHUFFLE_H

#include <stddef.h>
#include <stdint.h>

/* `order` begins as 0 .. count - 1; each epoch permutes it further. */
typedef struct {
    uint64_t state;
    size_t count;
    size_t *order;
} shuffle;

shuffle shuffle_create(uint64_t seed, size_t count);
void shuffle_epoch(shuffle *s);
void shuffle_free(shuffle *s);

#endif
