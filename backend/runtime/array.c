#include "array.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "memory.h"

const char *shape_text(char text[SHAPE_TEXT], const char *batch, const size_t *shape, int rank) {
    size_t used = (size_t)snprintf(text, SHAPE_TEXT, "(%s", batch);
    int axes = rank + (batch[0] != '\0');
    const char *separator = batch[0] != '\0' ? "," : "";
    for (int i = 0; i < rank; i++) {
        used += (size_t)snprintf(text + used, SHAPE_TEXT - used, "%s%zu", separator, shape[i]);
        separator = ",";
    }
    (void)snprintf(text + used, SHAPE_TEXT - used, axes == 1 ? ",)" : ")");
    return text;
}

const char *scaling_text(char text[SCALING_TEXT], scaling scale) {
    double factor = (double)scale.scale, shift = (double)scale.shift;
    char sign = shift < 0.0 ? '-' : '+';
    (void)snprintf(text, SCALING_TEXT, "v * %.9g %c %.9g", factor, sign, shift < 0.0 ? -shift : shift);
    return text;
}

bool shape_equal(const size_t *a, int rank_a, const size_t *b, int rank_b) {
    if (rank_a != rank_b) return false;
    for (int i = 0; i < rank_a; i++) {
        if (a[i] != b[i]) return false;
    }
    return true;
}

size_t array_item_size(array_type type) {
    switch (type) {
        case ARRAY_UINT8: return 1;
        case ARRAY_INT32:
        case ARRAY_FLOAT32: return 4;
        case ARRAY_INT64: return 8;
        case ARRAY_OTHER: break;
    }
    return 0;
}

void array_attach(const char *path, array *a, size_t offset) {
    char text[SHAPE_TEXT];
    shape_text(text, "", a->shape, a->rank);
    size_t wanted = 0;
    if (!size_product(a->shape, a->rank, &a->count) ||
        !size_multiply(a->count, array_item_size(a->type), &wanted)) {
        fail(path, "shape %s is too large", text);
    }
    size_t present = a->file.size - offset;
    if (present != wanted) {
        fail(path, "%s: %s of shape %s takes %zu bytes, found %zu",
             present < wanted ? "truncated" : "has extra bytes", a->type_name, text, wanted, present);
    }
    a->data = a->file.data + offset;
}

void array_floats(const array *a, size_t first, size_t count, scaling scale, float *out) {
    if (a->type == ARRAY_FLOAT32) {
        if (count > 0) memcpy(out, a->data + first * sizeof *out, count * sizeof *out);
        return;
    }
    const unsigned char *in = a->data + first;
    for (size_t i = 0; i < count; i++) out[i] = (float)in[i] * scale.scale + scale.shift;
}

int64_t array_integer(const array *a, size_t index) {
    if (a->type == ARRAY_UINT8) return a->data[index];
    if (a->type == ARRAY_INT32) {
        int32_t value;
        memcpy(&value, a->data + index * sizeof value, sizeof value);
        return value;
    }
    int64_t value;
    memcpy(&value, a->data + index * sizeof value, sizeof value);
    return value;
}

void array_free(array *a) {
    free(a->file.data);
    *a = (array){0};
}
