/* Feeds damaged files to the readers of the built programs: `fuzz COUNT FILE`. A reader may accept a
   file or fail with a message; anything else is found by the sanitizers this is compiled with.
   Stands in for error.c and files.c: failing is a jump, a file is a damaged copy of FILE. */
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataset.h"
#include "error.h"
#include "files.h"
#include "safetensors.h"

static jmp_buf failed;
static unsigned char original[1 << 20];
static size_t original_size;
static uint64_t state = 1;

static size_t random_below(size_t bound) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (size_t)(state >> 33) % bound;
}

void fail(const char *path, const char *format, ...) {
    (void)path, (void)format;
    longjmp(failed, 1);
}

void fail_usage(const char *format, ...) {
    (void)format;
    longjmp(failed, 1);
}

void file_write(const char *path, const file_part *parts, size_t count) {
    (void)path, (void)parts, (void)count;
}

static void damage(bytes *file) {
    if (file->size > 0 && random_below(3) == 0) file->size = random_below(file->size);
    for (size_t i = random_below(4); file->size > 0 && i > 0; i--) {
        size_t near = file->size < 200 || random_below(2) == 0 ? file->size : 200; /* headers come first */
        static const unsigned char telling[] = {0, 1, 0x7f, 0x80, 0xff, '"', '\\', '{', '(', ',', '9', '\''};
        file->data[random_below(near)] =
            random_below(2) == 0 ? telling[random_below(sizeof telling)] : (unsigned char)random_below(256);
    }
}

/* An allocation of the exact size, so that a step beyond its end is noticed. No path: three labels. */
bytes file_read(const char *path) {
    static const unsigned char labels[] = {0, 0, 8, 1, 0, 0, 0, 3, 2, 0, 1};
    static unsigned char scratch[sizeof original];
    memcpy(scratch, original, original_size);
    bytes file = {scratch, original_size};
    damage(&file);
    if (path == NULL) file = (bytes){memcpy(scratch, labels, sizeof labels), sizeof labels};
    unsigned char *copy = malloc(file.size);
    if (copy == NULL) abort();
    memcpy(copy, file.data, file.size);
    return (bytes){copy, file.size};
}

int main(int argc, char **argv) {
    static const tensor weights[] = {{"fc.weight", 4, {3, 1, 4, 4}, 48}, {"fc.bias", 1, {3}, 3}};
    static const tensor input = {"image", 3, {1, 4, 4}, 16};
    if (argc != 3) return 2;
    FILE *file = fopen(argv[2], "rb");
    if (file == NULL) return 2;
    original_size = fread(original, 1, sizeof original, file);
    fclose(file);
    volatile long accepted = 0;
    for (volatile long i = atol(argv[1]); i > 0; i--) {
        if (setjmp(failed) != 0) continue;
        if (strstr(argv[2], ".safetensors") != NULL) {
            free(safetensors_read(argv[2], weights, 2));
        } else if (strstr(argv[2], "labels") != NULL) {
            array labels = dataset_array(argv[2]);
            if (array_item_size(labels.type) != 0 && labels.count > 0)
                (void)array_integer(&labels, labels.count - 1);
            array_free(&labels);
        } else {
            dataset images = dataset_read(argv[2], NULL, &input, 3);
            float pixels[16];
            for (size_t k = 0; k < images.count; k++)
                dataset_image(&images, k, (scaling){0.5f, 1.0f}, pixels);
            dataset_free(&images);
        }
        accepted++;
    }
    printf("%ld accepted\n", accepted);
    return 0;
}
