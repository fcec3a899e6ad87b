/* The little of JSON (RFC 8259) that a safetensors header is made of, read with a cursor. */
#ifndef CNNC_RUNTIME_JSON_H
#define CNNC_RUNTIME_JSON_H

#include <stdbool.h>
#include <stddef.h>

/* A position in a text; every function fails with a message about `path` on malformed input. */
typedef struct {
    const char *path;
    const unsigned char *text;
    size_t size, at;
} json;

/* Steps over `c`, after blanks, if it comes next. */
bool json_accept(json *j, char c);
void json_expect(json *j, char c);

/* Reads a string into `out` as zero-terminated UTF-8, or steps over it when `out` is NULL. */
void json_string(json *j, char *out, size_t capacity);

/* Reads a whole number. */
size_t json_size(json *j);

/* Writes `text` as a JSON string, quotes included, and returns its length; `out` holds 6 bytes for
   each of text and 3 more. */
size_t json_quote(char *out, const char *text);

#endif
