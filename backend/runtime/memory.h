/* Memory and size arithmetic that cannot overflow silently. */
#ifndef CNNC_RUNTIME_MEMORY_H
#define CNNC_RUNTIME_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

enum { MEMORY_ALIGNMENT = 64 };

/* *product = a * b; false when that does not fit. */
bool size_multiply(size_t a, size_t b, size_t *product);

/* *product = the product of `count` factors, 1 for none; false when that does not fit. */
bool size_product(const size_t *factors, int count, size_t *product);

/* `count` elements of `size` bytes, uninitialised; fails with a message when memory runs out. */
void *memory_array(size_t count, size_t size);

/* At least `size` bytes, aligned as parameters and workspaces must be; released with free. */
void *memory_aligned(size_t size);

#endif
