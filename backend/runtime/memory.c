#include "memory.h"

#include <stdint.h>
#include <stdlib.h>

#include "error.h"

bool size_multiply(size_t a, size_t b, size_t *product) {
    if (b != 0 && a > SIZE_MAX / b) return false;
    *product = a * b;
    return true;
}

bool size_product(const size_t *factors, int count, size_t *product) {
    size_t result = 1;
    for (int i = 0; i < count; i++) {
        if (!size_multiply(result, factors[i], &result)) return false;
    }
    *product = result;
    return true;
}

void *memory_array(size_t count, size_t size) {
    size_t total = 0;
    if (!size_multiply(count, size, &total))
        fail(NULL, "out of memory: %zu elements of %zu bytes", count, size);
    void *memory = malloc(total > 0 ? total : 1);
    if (memory == NULL) fail(NULL, "out of memory: %zu bytes wanted", total);
    return memory;
}

void *memory_aligned(size_t size) {
    if (size > SIZE_MAX - MEMORY_ALIGNMENT) fail(NULL, "out of memory: %zu bytes wanted", size);
    size_t rounded = (size / MEMORY_ALIGNMENT + 1) * MEMORY_ALIGNMENT;
    void *memory = aligned_alloc(MEMORY_ALIGNMENT, rounded);
    if (memory == NULL) fail(NULL, "out of memory: %zu bytes wanted", rounded);
    return memory;
}
