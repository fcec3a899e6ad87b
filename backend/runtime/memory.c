#define _DEFAULT_SOURCE
#include "memory.h"

#include <stdint.h>
#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "error.h"

enum { LARGE_PAGE = 2 << 20 };

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

/* Large memory in large pages, where the system has them: fewer faults, and fewer addresses to look up. */
static void prefer_large_pages(void *memory, size_t size) {
#ifdef MADV_HUGEPAGE
    madvise(memory, size, MADV_HUGEPAGE); /* advice: nothing is lost where it is refused */
#else
    (void)memory, (void)size;
#endif
}

void *memory_aligned(size_t size) {
    size_t alignment = size < LARGE_PAGE ? MEMORY_ALIGNMENT : LARGE_PAGE;
    if (size > SIZE_MAX - alignment) fail(NULL, "out of memory: %zu bytes wanted", size);
    size_t rounded = (size / alignment + 1) * alignment;
    void *memory = aligned_alloc(alignment, rounded);
    if (memory == NULL) fail(NULL, "out of memory: %zu bytes wanted", rounded);
    if (size >= LARGE_PAGE) prefer_large_pages(memory, rounded);
    return memory;
}
