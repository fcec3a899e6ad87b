/* Weights in safetensors files: a 64-bit header size, a JSON header that maps each name to dtype,
   shape and byte range, then the data (https://huggingface.co/docs/safetensors). */
#ifndef CNNC_RUNTIME_SAFETENSORS_H
#define CNNC_RUNTIME_SAFETENSORS_H

#include "tensor.h"

/* All tensors of the table, concatenated in its order, from a file that holds exactly these, in
   float32; released with free. */
float *safetensors_read(const char *path, const tensor *tensors, size_t count);

/* Writes the tensors of the table from the values that safetensors_read gives. */
void safetensors_write(const char *path, const tensor *tensors, size_t count, const float *values);

#endif
