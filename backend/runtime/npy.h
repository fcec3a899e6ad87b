/* NumPy's .npy files, versions 1 to 3 (numpy.lib.format describes them). */
#ifndef CNNC_RUNTIME_NPY_H
#define CNNC_RUNTIME_NPY_H

#include "array.h"

bool npy_recognise(const bytes *file);

/* Parses `file`, which the array then owns. Any element type is accepted and named in `type_name`;
   the data of types the programs cannot use (ARRAY_OTHER) stays NULL. */
array npy_parse(const char *path, bytes file);

/* Writes float32 values of that shape. */
void npy_write(const char *path, const float *values, const size_t *shape, int rank);

#endif
