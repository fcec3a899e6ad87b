/* IDX files, the format of MNIST: 0, 0, element type, rank, the extents as big-endian 32-bit
   numbers, then the elements. */
#ifndef CNNC_RUNTIME_IDX_H
#define CNNC_RUNTIME_IDX_H

#include "array.h"

bool idx_recognise(const bytes *file);

/* Parses `file`, which the array then owns; unsigned bytes are the only element type. */
array idx_parse(const char *path, bytes file);

#endif
