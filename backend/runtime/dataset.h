/* Labelled images for training and testing. */
#ifndef CNNC_RUNTIME_DATASET_H
#define CNNC_RUNTIME_DATASET_H

#include "array.h"

/* An array from an .npy or IDX file, plain or compressed by gzip. */
array dataset_array(const char *path);

/* `count` images, planes x height x width each, at (top, left) of the network's input, whose other
   pixels hold the raw value 0; and their labels, all within 0 .. classes - 1. */
typedef struct {
    array images;
    int32_t *labels;
    size_t count;
    size_t planes, height, width;
    size_t input_height, input_width, top, left;
} dataset;

/* Reads and checks both files. Images have the shape of `input`, without its first axis if that is 1
   and, for inputs with three axes, smaller by an even number of pixels if they like. */
dataset dataset_read(const char *images, const char *labels, const tensor *input, size_t classes);

/* Writes image `index` as the network's input. */
void dataset_image(const dataset *d, size_t index, scaling scale, float *out);

void dataset_free(dataset *d);

#endif
