#include "safetensors.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "error.h"
#include "files.h"
#include "json.h"
#include "memory.h"

enum { PREFIX = 8, NAME_CAPACITY = 512, TYPE_CAPACITY = 16 };

/* What the header says of one tensor. */
typedef struct {
    char name[NAME_CAPACITY], type[TYPE_CAPACITY];
    size_t shape[TENSOR_MAX_RANK];
    int rank;
    size_t begin, end;
} entry;

/* A file being read into `values`; found[i] is set once table entry i has been seen. */
typedef struct {
    const char *path;
    const tensor *tensors;
    size_t count;
    bool *found;
    float *values;
    const unsigned char *data;
    size_t data_size;
} reader;

static size_t total_size(const tensor *tensors, size_t count) {
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += tensors[i].size;
    return total;
}

static void parse_shape(json *j, entry *e) {
    json_expect(j, '[');
    e->rank = 0;
    if (json_accept(j, ']')) return;
    do {
        if (e->rank == TENSOR_MAX_RANK)
            fail(j->path, "tensor %s has more than %d axes", e->name, TENSOR_MAX_RANK);
        e->shape[e->rank++] = json_size(j);
    } while (json_accept(j, ','));
    json_expect(j, ']');
}

static void parse_offsets(json *j, entry *e) {
    json_expect(j, '[');
    e->begin = json_size(j);
    json_expect(j, ',');
    e->end = json_size(j);
    json_expect(j, ']');
}

/* {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, in any order. */
static void parse_entry(json *j, entry *e) {
    bool has_type = false, has_shape = false, has_offsets = false;
    json_expect(j, '{');
    do {
        char key[NAME_CAPACITY];
        json_string(j, key, sizeof key);
        json_expect(j, ':');
        if (strcmp(key, "dtype") == 0) {
            json_string(j, e->type, sizeof e->type);
            has_type = true;
        } else if (strcmp(key, "shape") == 0) {
            parse_shape(j, e);
            has_shape = true;
        } else if (strcmp(key, "data_offsets") == 0) {
            parse_offsets(j, e);
            has_offsets = true;
        } else {
            fail(j->path, "malformed header: tensor %s has an unknown key %s", e->name, key);
        }
    } while (json_accept(j, ','));
    json_expect(j, '}');
    if (!has_type || !has_shape || !has_offsets)
        fail(j->path, "malformed header: tensor %s is not complete", e->name);
}

/* "__metadata__": an object of strings, which mean nothing here. */
static void skip_metadata(json *j) {
    json_expect(j, '{');
    if (json_accept(j, '}')) return;
    do {
        json_string(j, NULL, 0);
        json_expect(j, ':');
        json_string(j, NULL, 0);
    } while (json_accept(j, ','));
    json_expect(j, '}');
}

/* Copies the entry's data to its tensor's place, or fails because the network has no such tensor. */
static void take_entry(reader *r, const entry *e) {
    size_t i = 0, offset = 0;
    while (i < r->count && strcmp(r->tensors[i].name, e->name) != 0) offset += r->tensors[i++].size;
    if (i == r->count) fail(r->path, "holds %s, which is not a weight of this network", e->name);
    const tensor *t = &r->tensors[i];
    if (r->found[i]) fail(r->path, "holds %s twice", e->name);
    char expected[SHAPE_TEXT], found[SHAPE_TEXT];
    if (strcmp(e->type, "F32") != 0 || !shape_equal(e->shape, e->rank, t->shape, t->rank)) {
        fail(r->path, "%s is %s of shape %s, expected F32 of shape %s", e->name, e->type,
             shape_text(found, "", e->shape, e->rank), shape_text(expected, "", t->shape, t->rank));
    }
    if (e->end > r->data_size || e->begin > e->end)
        fail(r->path, "truncated: %s lies outside the file", e->name);
    if (e->end - e->begin != t->size * sizeof(float)) {
        fail(r->path, "malformed header: %s takes %zu bytes, found %zu", e->name, t->size * sizeof(float),
             e->end - e->begin);
    }
    memcpy(r->values + offset, r->data + e->begin, e->end - e->begin);
    r->found[i] = true;
}

static void read_header(reader *r, const unsigned char *text, size_t size) {
    json j = {r->path, text, size, 0};
    json_expect(&j, '{');
    bool is_empty = json_accept(&j, '}');
    while (!is_empty) {
        entry e;
        json_string(&j, e.name, sizeof e.name);
        json_expect(&j, ':');
        if (strcmp(e.name, "__metadata__") == 0) {
            skip_metadata(&j);
        } else {
            parse_entry(&j, &e);
            take_entry(r, &e);
        }
        if (json_accept(&j, ',')) continue;
        json_expect(&j, '}');
        break;
    }
    for (size_t i = 0; i < r->count; i++) {
        if (!r->found[i]) fail(r->path, "has no tensor %s, a weight of this network", r->tensors[i].name);
    }
}

float *safetensors_read(const char *path, const tensor *tensors, size_t count) {
    bytes file = file_read(path);
    if (file.size < PREFIX) fail(path, "truncated: not a safetensors file");
    uint64_t size = 0;
    for (int i = PREFIX - 1; i >= 0; i--) size = size << 8 | file.data[i];
    if (size > file.size - PREFIX)
        fail(path, "truncated, or not a safetensors file: its header is not complete");
    reader r = {.path = path, .tensors = tensors, .count = count};
    r.values = memory_array(total_size(tensors, count), sizeof *r.values);
    r.found = memory_array(count, sizeof *r.found);
    memset(r.found, 0, count * sizeof *r.found);
    r.data = file.data + PREFIX + size;
    r.data_size = file.size - PREFIX - (size_t)size;
    read_header(&r, file.data + PREFIX, (size_t)size);
    free(r.found);
    free(file.data);
    return r.values;
}

/* Appends the entry of one tensor to `out`; returns its length. */
static size_t write_entry(char *out, const tensor *t, size_t begin) {
    size_t used = json_quote(out, t->name);
    used += (size_t)sprintf(out + used, ":{\"dtype\":\"F32\",\"shape\":[");
    for (int i = 0; i < t->rank; i++)
        used += (size_t)sprintf(out + used, i > 0 ? ",%zu" : "%zu", t->shape[i]);
    size_t end = begin + t->size * sizeof(float);
    return used + (size_t)sprintf(out + used, "],\"data_offsets\":[%zu,%zu]}", begin, end);
}

void safetensors_write(const char *path, const tensor *tensors, size_t count, const float *values) {
    size_t capacity = 16;
    for (size_t i = 0; i < count; i++) capacity += 6 * strlen(tensors[i].name) + 320;
    char *header = memory_array(capacity, 1);
    size_t used = 0, offset = 0;
    header[used++] = '{';
    for (size_t i = 0; i < count; i++) {
        if (i > 0) header[used++] = ',';
        used += write_entry(header + used, &tensors[i], offset);
        offset += tensors[i].size * sizeof *values;
    }
    header[used++] = '}';
    while (used % 8 != 0) header[used++] = ' ';
    unsigned char prefix[PREFIX];
    for (int i = 0; i < PREFIX; i++) prefix[i] = (unsigned char)((uint64_t)used >> 8 * i & 0xff);
    file_part parts[] = {{prefix, sizeof prefix}, {header, used}, {values, offset}};
    file_write(path, parts, 3);
    free(header);
}
