#include "dataset.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "gzip.h"
#include "idx.h"
#include "memory.h"
#include "npy.h"

array dataset_array(const char *path) {
    bytes file = file_read(path);
    if (gzip_recognise(&file)) file = gzip_expand(path, file);
    if (npy_recognise(&file)) return npy_parse(path, file);
    if (idx_recognise(&file)) return idx_parse(path, file);
    fail(path, "is neither an .npy nor an IDX file, plain or compressed by gzip");
}

static void bad_images(const char *path, const array *found, const tensor *input) {
    char expected[SHAPE_TEXT], actual[SHAPE_TEXT];
    fail(path, "expected uint8 or float32 images of shape %s%s, found %s of shape %s",
         shape_text(expected, "N", input->shape, input->rank),
         input->rank == 3 ? ", or smaller by an even number of pixels" : "", found->type_name,
         shape_text(actual, "", found->shape, found->rank));
}

/* Whether images of `extent` pixels can be centred on `target`; *margin is the space before them. */
static bool centre(size_t extent, size_t target, size_t *margin) {
    if (extent == 0 || extent > target || (target - extent) % 2 != 0) return false;
    *margin = (target - extent) / 2;
    return true;
}

/* Sets where the images lie on the input; false when they do not fit. */
static bool place_images(dataset *d, const tensor *input) {
    const array *a = &d->images;
    int left_out = a->rank == input->rank && input->rank > 1 && input->shape[0] == 1 ? 1 : 0;
    const size_t *shape = a->shape + 1, *target = input->shape + left_out;
    int rank = input->rank - left_out;
    if (a->rank != rank + 1) return false;
    d->planes = 1, d->height = 1, d->width = input->size;
    d->input_height = 1, d->input_width = input->size;
    d->top = 0, d->left = 0;
    if (input->rank != 3) return shape_equal(shape, rank, target, rank);
    if (left_out == 0 && shape[0] != target[0]) return false;
    d->planes = input->shape[0], d->height = shape[rank - 2], d->width = shape[rank - 1];
    d->input_height = input->shape[1], d->input_width = input->shape[2];
    return centre(d->height, d->input_height, &d->top) && centre(d->width, d->input_width, &d->left);
}

static void read_images(dataset *d, const char *path, const tensor *input) {
    d->images = dataset_array(path);
    bool has_type = d->images.type == ARRAY_UINT8 || d->images.type == ARRAY_FLOAT32;
    if (!has_type || !place_images(d, input)) bad_images(path, &d->images, input);
    d->count = d->images.shape[0];
    if (d->count == 0) fail(path, "holds no images");
}

static void read_labels(dataset *d, const char *path, const char *images, size_t classes) {
    array labels = dataset_array(path);
    if (array_item_size(labels.type) == 0 || labels.type == ARRAY_FLOAT32 || labels.rank != 1) {
        char actual[SHAPE_TEXT];
        fail(path, "expected uint8, int32 or int64 labels of shape (N,), found %s of shape %s",
             labels.type_name, shape_text(actual, "", labels.shape, labels.rank));
    }
    if (labels.count != d->count)
        fail(path, "%zu labels for the %zu images of %s", labels.count, d->count, images);
    d->labels = memory_array(d->count, sizeof *d->labels);
    for (size_t i = 0; i < d->count; i++) {
        int64_t label = array_integer(&labels, i);
        if (label < 0 || (uint64_t)label >= classes) {
            fail(path, "label %zu is %" PRId64 ", but the network's classes are 0 to %zu", i, label,
                 classes - 1);
        }
        d->labels[i] = (int32_t)label;
    }
    array_free(&labels);
}

dataset dataset_read(const char *images, const char *labels, const tensor *input, size_t classes) {
    dataset d = {0};
    read_images(&d, images, input);
    read_labels(&d, labels, images, classes);
    return d;
}

static void fill(float *out, size_t count, float value) {
    for (size_t i = 0; i < count; i++) out[i] = value;
}

void dataset_image(const dataset *d, size_t index, scaling scale, float *out) {
    size_t row = index * d->planes * d->height;
    size_t plane_size = d->input_height * d->input_width;
    bool is_smaller = d->height < d->input_height || d->width < d->input_width;
    if (is_smaller) fill(out, d->planes * plane_size, 0.0f * scale.scale + scale.shift);
    for (size_t plane = 0; plane < d->planes; plane++) {
        float *to = out + plane * plane_size + d->top * d->input_width + d->left;
        for (size_t y = 0; y < d->height; y++, row++) {
            array_floats(&d->images, row * d->width, d->width, scale, to + y * d->input_width);
        }
    }
}

void dataset_free(dataset *d) {
    array_free(&d->images);
    free(d->labels);
    *d = (dataset){0};
}
