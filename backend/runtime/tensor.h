/* What the programs know of the network they contain: entries of the tables in network.h. */
#ifndef CNNC_RUNTIME_TENSOR_H
#define CNNC_RUNTIME_TENSOR_H

#include <stddef.h>

enum { TENSOR_MAX_RANK = 8 };

/* A tensor's name and shape (for inputs and outputs without the batch axis); `size` in elements. */
typedef struct {
    const char *name;
    int rank;
    size_t shape[TENSOR_MAX_RANK];
    size_t size;
} tensor;

/* How a uint8 value v becomes a float: v * scale + shift, rounded to float after each operation. */
typedef struct {
    float scale, shift;
} scaling;

#endif
