#include "npy.h"

#include <stdio.h>
#include <string.h>

#include "error.h"
#include "memory.h"

static const unsigned char MAGIC[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

/* The header: a Python dict literal with the keys descr, fortran_order and shape. */
typedef struct {
    const char *path;
    const char *text;
    size_t size, at;
} header;

bool npy_recognise(const bytes *file) {
    return file->size >= 6 && memcmp(file->data, MAGIC, sizeof MAGIC) == 0;
}

static void skip_blanks(header *h) {
    while (h->at < h->size && strchr(" \t\n\r", h->text[h->at]) != NULL && h->text[h->at] != '\0') h->at++;
}

static bool accept(header *h, const char *word) {
    skip_blanks(h);
    size_t length = strlen(word);
    if (h->size - h->at < length || memcmp(h->text + h->at, word, length) != 0) return false;
    h->at += length;
    return true;
}

static void expect(header *h, const char *word) {
    if (!accept(h, word)) fail(h->path, "malformed .npy header: expected %s at its byte %zu", word, h->at);
}

/* A quoted string without escapes, cut to `capacity`. */
static void parse_string(header *h, char *out, size_t capacity) {
    skip_blanks(h);
    char quote = h->at < h->size ? h->text[h->at] : '\0';
    if (quote != '\'' && quote != '"')
        fail(h->path, "malformed .npy header: expected a string at its byte %zu", h->at);
    const char *begin = h->text + ++h->at;
    const char *end = memchr(begin, quote, h->size - h->at);
    if (end == NULL) fail(h->path, "malformed .npy header: a string does not end");
    size_t length = (size_t)(end - begin);
    h->at += length + 1;
    if (length >= capacity) length = capacity - 1;
    memcpy(out, begin, length);
    out[length] = '\0';
}

static size_t parse_extent(header *h) {
    size_t value = 0, digits = 0;
    skip_blanks(h);
    for (; h->at < h->size && h->text[h->at] >= '0' && h->text[h->at] <= '9'; h->at++, digits++) {
        size_t digit = (size_t)(h->text[h->at] - '0');
        if (!size_multiply(value, 10, &value) || value > SIZE_MAX - digit)
            fail(h->path, "its shape is too large");
        value += digit;
    }
    if (digits == 0) fail(h->path, "malformed .npy header: expected a number at its byte %zu", h->at);
    return value;
}

static void parse_shape(header *h, array *a) {
    expect(h, "(");
    a->rank = 0;
    while (!accept(h, ")")) {
        if (a->rank == TENSOR_MAX_RANK) fail(h->path, "has more than %d axes", TENSOR_MAX_RANK);
        a->shape[a->rank++] = parse_extent(h);
        if (accept(h, ",")) continue;
        expect(h, ")");
        return;
    }
}

static void parse_type(header *h, array *a) {
    static const struct {
        const char *descr, *name;
        array_type type;
    } types[] = {
        {"<f4", "float32", ARRAY_FLOAT32}, {"|u1", "uint8", ARRAY_UINT8},   {"<i4", "int32", ARRAY_INT32},
        {"<i8", "int64", ARRAY_INT64},     {"<f8", "float64", ARRAY_OTHER}, {"|b1", "bool", ARRAY_OTHER},
    };
    parse_string(h, a->type_name, sizeof a->type_name);
    a->type = ARRAY_OTHER;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(a->type_name, types[i].descr) != 0) continue;
        (void)snprintf(a->type_name, sizeof a->type_name, "%s", types[i].name);
        a->type = types[i].type;
        return;
    }
}

static void parse_header(header *h, array *a) {
    bool has_type = false, has_order = false, has_shape = false;
    expect(h, "{");
    while (!accept(h, "}")) {
        char key[16];
        parse_string(h, key, sizeof key);
        expect(h, ":");
        if (strcmp(key, "descr") == 0) {
            parse_type(h, a);
            has_type = true;
        } else if (strcmp(key, "fortran_order") == 0) {
            if (accept(h, "True")) fail(h->path, "is in Fortran order: save numpy.ascontiguousarray of it");
            expect(h, "False");
            has_order = true;
        } else if (strcmp(key, "shape") == 0) {
            parse_shape(h, a);
            has_shape = true;
        } else {
            fail(h->path, "malformed .npy header: unknown key '%s'", key);
        }
        (void)accept(h, ",");
    }
    if (!has_type || !has_order || !has_shape)
        fail(h->path, "malformed .npy header: descr, order or shape is missing");
}

array npy_parse(const char *path, bytes file) {
    if (file.size < 8 || !npy_recognise(&file)) fail(path, "is not an .npy file");
    unsigned version = file.data[6];
    if (version < 1 || version > 3) fail(path, ".npy version %u is not known", version);
    size_t start = version == 1 ? 10 : 12;
    if (file.size < start) fail(path, "truncated: the .npy header is not complete");
    size_t length = file.data[8] | (size_t)file.data[9] << 8;
    if (version > 1) length |= (size_t)file.data[10] << 16 | (size_t)file.data[11] << 24;
    if (length > file.size - start) fail(path, "truncated: the .npy header is not complete");
    array a = {.file = file};
    header h = {path, (const char *)file.data + start, length, 0};
    parse_header(&h, &a);
    if (a.type != ARRAY_OTHER) array_attach(path, &a, start + length);
    return a;
}

void npy_write(const char *path, const float *values, const size_t *shape, int rank) {
    char axes[SHAPE_TEXT], text[512];
    shape_text(axes, "", shape, rank);
    int used = snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }", axes);
    size_t length = ((size_t)used + 1 + 10 + 63) / 64 * 64 - 10; /* data begin at a multiple of 64 */
    memset(text + used, ' ', length - (size_t)used);
    text[length - 1] = '\n';
    unsigned char prefix[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 0, 0};
    prefix[8] = (unsigned char)(length & 0xff);
    prefix[9] = (unsigned char)(length >> 8);
    size_t count = 0, size = 0;
    if (!size_product(shape, rank, &count) || !size_multiply(count, sizeof *values, &size))
        fail(path, "too large");
    file_part parts[] = {{prefix, sizeof prefix}, {text, length}, {values, size}};
    file_write(path, parts, 3);
}
