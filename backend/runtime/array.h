/* An array read from a file: its element type, shape and raw bytes. */
#ifndef CNNC_RUNTIME_ARRAY_H
#define CNNC_RUNTIME_ARRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "files.h"
#include "tensor.h"

typedef enum { ARRAY_OTHER, ARRAY_UINT8, ARRAY_INT32, ARRAY_INT64, ARRAY_FLOAT32 } array_type;

/* `data` points into `file`, little-endian and row-major; nothing promises its alignment. */
typedef struct {
    array_type type;
    char type_name[24];
    int rank;
    size_t shape[TENSOR_MAX_RANK];
    size_t count;
    const unsigned char *data;
    bytes file;
} array;

enum { SHAPE_TEXT = 192, SCALING_TEXT = 64 };

/* "(1,32,32)", "(10,)" or, with batch = "N", "(N,1,32,32)". Returns `text`. */
const char *shape_text(char text[SHAPE_TEXT], const char *batch, const size_t *shape, int rank);

/* "v * 0.5 - 1": how a uint8 value v is read. Returns `text`. */
const char *scaling_text(char text[SCALING_TEXT], scaling scale);

bool shape_equal(const size_t *a, int rank_a, const size_t *b, int rank_b);

/* Bytes of an element; 0 for ARRAY_OTHER. */
size_t array_item_size(array_type type);

/* Sets `count` and points `data` at the elements that fill the file from `offset` to its end; fails
   when the file is shorter or longer than type and shape ask for. */
void array_attach(const char *path, array *a, size_t offset);

/* Elements first .. first + count - 1 of a uint8 (scaled) or float32 (as it is) array as floats. */
void array_floats(const array *a, size_t first, size_t count, scaling scale, float *out);

/* Element `index` of a uint8, int32 or int64 array. */
int64_t array_integer(const array *a, size_t index);

void array_free(array *a);

#endif
