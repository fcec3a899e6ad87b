#include "gzip.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "inflate.h"
#include "memory.h"

enum {
    HEADER = 10,
    TRAILER = 8,
    HAS_CHECKSUM = 2,
    HAS_EXTRA = 4,
    HAS_NAME = 8,
    HAS_COMMENT = 16,
    RESERVED = 224
};

/* Deflate takes at least 2 bits for 258 bytes, so no honest file expands more than this. */
enum { MAX_RATIO = 1032 };

bool gzip_recognise(const bytes *file) {
    return file->size >= 2 && file->data[0] == 0x1f && file->data[1] == 0x8b;
}

static uint32_t little_endian(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* CRC-32 with the reflected polynomial 0xedb88320, four bits at a time. */
static uint32_t checksum(const unsigned char *data, size_t size) {
    uint32_t table[16], sum = 0xffffffff;
    for (uint32_t i = 0; i < 16; i++) {
        table[i] = i;
        for (int bit = 0; bit < 4; bit++) table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320 : 0);
    }
    for (size_t i = 0; i < size; i++) {
        sum ^= data[i];
        sum = sum >> 4 ^ table[sum & 15];
        sum = sum >> 4 ^ table[sum & 15];
    }
    return ~sum;
}

/* The offset behind a zero-terminated text at `at`, or the file's size when it does not end. */
static size_t skip_text(const bytes *file, size_t at) {
    if (at >= file->size) return file->size;
    const unsigned char *end = memchr(file->data + at, 0, file->size - at);
    return end != NULL ? (size_t)(end - file->data) + 1 : file->size;
}

/* The offset of the compressed data. */
static size_t skip_header(const char *path, const bytes *file) {
    if (file->size < HEADER + TRAILER) fail(path, "truncated: the gzip header is not complete");
    unsigned flags = file->data[3];
    if (file->data[2] != 8 || (flags & RESERVED) != 0) fail(path, "an unknown kind of gzip file");
    size_t at = HEADER;
    if (flags & HAS_EXTRA) at += 2 + ((size_t)file->data[at] | (size_t)file->data[at + 1] << 8);
    if (flags & HAS_NAME) at = skip_text(file, at);
    if (flags & HAS_COMMENT) at = skip_text(file, at);
    if (flags & HAS_CHECKSUM) at += 2;
    if (at > file->size - TRAILER) fail(path, "truncated: the gzip header is not complete");
    return at;
}

bytes gzip_expand(const char *path, bytes file) {
    size_t start = skip_header(path, &file);
    size_t packed = file.size - TRAILER - start, consumed = 0;
    const unsigned char *trailer = file.data + file.size - TRAILER;
    bytes expanded = {NULL, little_endian(trailer + 4)};
    if (expanded.size / MAX_RATIO > packed)
        fail(path, "truncated, or not one gzip member: its end gives no possible size");
    expanded.data = memory_array(expanded.size, 1);
    const char *error = inflate(file.data + start, packed, expanded.data, expanded.size, &consumed);
    if (error == NULL && consumed != packed) error = "bytes follow the compressed data";
    if (error == NULL && checksum(expanded.data, expanded.size) != little_endian(trailer))
        error = "its checksum is wrong";
    free(file.data);
    if (error != NULL) {
        free(expanded.data);
        fail(path, "damaged gzip file: %s", error);
    }
    return expanded;
}
