#include "json.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

static _Noreturn void malformed(const json *j, const char *expected) {
    fail(j->path, "malformed header: expected %s at its byte %zu", expected, j->at);
}

static void skip_blanks(json *j) {
    while (j->at < j->size && j->text[j->at] != '\0' && strchr(" \t\r\n", j->text[j->at]) != NULL) j->at++;
}

bool json_accept(json *j, char c) {
    skip_blanks(j);
    if (j->at >= j->size || j->text[j->at] != (unsigned char)c) return false;
    j->at++;
    return true;
}

void json_expect(json *j, char c) {
    char expected[2] = {c, '\0'};
    if (!json_accept(j, c)) malformed(j, expected);
}

static unsigned hexadecimal(json *j) {
    unsigned value = 0;
    for (int i = 0; i < 4; i++, j->at++) {
        const char *digits = "0123456789abcdef0123456789ABCDEF";
        const char *found = j->at < j->size && j->text[j->at] != '\0' ? strchr(digits, j->text[j->at]) : NULL;
        if (found == NULL) malformed(j, "four hexadecimal digits");
        value = value << 4 | ((unsigned)(found - digits) & 15);
    }
    return value;
}

/* The character of \uXXXX, or of two of them that form a surrogate pair; `at` is behind the first u. */
static unsigned unicode_escape(json *j) {
    unsigned first = hexadecimal(j);
    if (first < 0xd800 || first > 0xdfff) return first;
    if (first > 0xdbff || j->size - j->at < 6 || memcmp(j->text + j->at, "\\u", 2) != 0)
        malformed(j, "a surrogate pair");
    j->at += 2;
    unsigned second = hexadecimal(j);
    if (second < 0xdc00 || second > 0xdfff) malformed(j, "a surrogate pair");
    return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
}

/* UTF-8 of `character`; returns the number of bytes. */
static size_t encode(unsigned char out[4], unsigned character) {
    if (character < 0x80) {
        out[0] = (unsigned char)character;
        return 1;
    }
    size_t length = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, character >>= 6)
        out[i] = (unsigned char)(0x80 | (character & 0x3f));
    out[0] = (unsigned char)((0xf00 >> length & 0xff) | character);
    return length;
}

/* One character of a string, escapes resolved: its bytes go to `out`, their number is returned. */
static size_t string_character(json *j, unsigned char out[4]) {
    out[0] = j->text[j->at++];
    if (out[0] < 0x20) malformed(j, "no control character in a string");
    if (out[0] != '\\') return 1;
    if (j->at >= j->size || j->text[j->at] == '\0') malformed(j, "an escape sequence");
    char escaped = (char)j->text[j->at++];
    unsigned character = 0;
    if (escaped == 'u') {
        character = unicode_escape(j);
    } else {
        const char *names = "\"\\/bfnrt", *values = "\"\\/\b\f\n\r\t";
        const char *found = strchr(names, escaped);
        if (found != NULL) character = (unsigned char)values[found - names];
    }
    if (character == 0) malformed(j, "a known escape sequence");
    return encode(out, character);
}

void json_string(json *j, char *out, size_t capacity) {
    json_expect(j, '"');
    size_t used = 0;
    while (j->at < j->size && j->text[j->at] != '"') {
        unsigned char character[4];
        size_t length = string_character(j, character);
        if (out == NULL) continue;
        if (length >= capacity - used)
            fail(j->path, "malformed header: a name of more than %zu bytes", capacity - 1);
        memcpy(out + used, character, length);
        used += length;
    }
    if (out != NULL) out[used] = '\0';
    json_expect(j, '"');
}

size_t json_size(json *j) {
    size_t value = 0, digits = 0;
    skip_blanks(j);
    for (; j->at < j->size && j->text[j->at] >= '0' && j->text[j->at] <= '9'; j->at++, digits++) {
        size_t digit = (size_t)(j->text[j->at] - '0');
        if (value > (SIZE_MAX - digit) / 10) fail(j->path, "malformed header: a number is too large");
        value = value * 10 + digit;
    }
    if (digits == 0) malformed(j, "a number");
    return value;
}

size_t json_quote(char *out, const char *text) {
    size_t used = 0;
    out[used++] = '"';
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') out[used++] = '\\';
        if ((unsigned char)*text < 0x20) {
            used += (size_t)sprintf(out + used, "\\u%04x", (unsigned)*text);
        } else {
            out[used++] = *text;
        }
    }
    out[used++] = '"';
    out[used] = '\0';
    return used;
}
