/* Deflate (RFC 1951): blocks of bytes, stored or coded by two Huffman codes, with copies of what was
   written before. A code is a table over the next 15 bits, so a symbol takes one look-up. */
#include "inflate.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BITS = 15, LITERALS = 288, DISTANCES = 30, LENGTH_CODES = 19 };

/* Entry for the next 15 bits, first bit lowest: symbol << 4 | length of its code; 0: no such code. */
typedef struct {
    uint16_t entry[1 << MAX_BITS];
} code;

typedef struct {
    const unsigned char *in;
    size_t in_size, next;
    uint64_t bits; /* bits taken from `in` and not used, first bit lowest, zeros above */
    unsigned held; /* how many of them */
    unsigned char *out;
    size_t out_size, written;
    const char *error;
    code literals, distances;
} stream;

static bool bad(stream *s, const char *what) {
    if (s->error == NULL) s->error = what;
    return false;
}

static void refill(stream *s) {
    for (; s->held <= 56 && s->next < s->in_size; s->held += 8)
        s->bits |= (uint64_t)s->in[s->next++] << s->held;
}

/* The next `count` <= 16 bits; past the end of the data sets the error and gives 0. */
static unsigned take(stream *s, unsigned count) {
    if (s->held < count) refill(s);
    if (s->held < count) {
        (void)bad(s, "the compressed data end too early");
        return 0;
    }
    unsigned value = (unsigned)(s->bits & ((UINT64_C(1) << count) - 1));
    s->bits >>= count;
    s->held -= count;
    return value;
}

static unsigned decode(stream *s, const code *c) {
    if (s->held < MAX_BITS) refill(s);
    unsigned entry = c->entry[s->bits & ((1 << MAX_BITS) - 1)];
    if (entry == 0) (void)bad(s, "the compressed data hold an unknown code");
    (void)take(s, entry & 15);
    return entry >> 4;
}

static unsigned reverse(unsigned value, unsigned count) {
    unsigned result = 0;
    for (; count > 0; count--, value >>= 1) result = result << 1 | (value & 1);
    return result;
}

/* The canonical code with these lengths (RFC 1951, 3.2.2). */
static bool build(stream *s, code *c, const unsigned char *lengths, unsigned symbols) {
    unsigned counts[MAX_BITS + 1] = {0}, next[MAX_BITS + 2] = {0};
    for (unsigned i = 0; i < symbols; i++) counts[lengths[i]]++;
    counts[0] = 0;
    for (unsigned length = 1; length <= MAX_BITS; length++) {
        if (next[length] + counts[length] > 1u << length)
            return bad(s, "the compressed data hold an impossible code");
        next[length + 1] = (next[length] + counts[length]) << 1;
    }
    memset(c, 0, sizeof *c);
    for (unsigned i = 0; i < symbols; i++) {
        unsigned length = lengths[i];
        if (length == 0) continue;
        unsigned first = reverse(next[length]++, length);
        for (unsigned at = first; at < 1u << MAX_BITS; at += 1u << length)
            c->entry[at] = (uint16_t)(i << 4 | length);
    }
    return true;
}

static bool fixed_codes(stream *s) {
    unsigned char lengths[LITERALS];
    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 112);
    memset(lengths + 256, 7, 24);
    memset(lengths + 280, 8, 8);
    if (!build(s, &s->literals, lengths, LITERALS)) return false;
    memset(lengths, 5, DISTANCES);
    return build(s, &s->distances, lengths, DISTANCES);
}

/* The code lengths of a dynamic block, themselves coded by `s->literals` with repeats (3.2.7). */
static bool read_lengths(stream *s, unsigned char *lengths, unsigned total) {
    for (unsigned at = 0; at < total;) {
        unsigned symbol = decode(s, &s->literals), repeat = 1;
        unsigned char value = (unsigned char)symbol;
        if (symbol == 16 && at == 0) return bad(s, "the compressed data repeat nothing");
        if (symbol >= 16) value = symbol == 16 ? lengths[at - 1] : 0;
        if (symbol == 16) repeat = 3 + take(s, 2);
        if (symbol == 17) repeat = 3 + take(s, 3);
        if (symbol == 18) repeat = 11 + take(s, 7);
        if (repeat > total - at) return bad(s, "the compressed data hold too many codes");
        if (s->error != NULL) return false;
        memset(lengths + at, value, repeat);
        at += repeat;
    }
    return true;
}

static bool dynamic_codes(stream *s) {
    static const unsigned char order[LENGTH_CODES] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                      11, 4,  12, 3, 13, 2, 14, 1, 15};
    unsigned literals = 257 + take(s, 5), distances = 1 + take(s, 5), coded = 4 + take(s, 4);
    if (literals > 286 || distances > DISTANCES) return bad(s, "the compressed data hold too many codes");
    unsigned char lengths[LITERALS + DISTANCES] = {0};
    for (unsigned i = 0; i < coded; i++) lengths[order[i]] = (unsigned char)take(s, 3);
    if (!build(s, &s->literals, lengths, LENGTH_CODES)) return false;
    if (!read_lengths(s, lengths, literals + distances)) return false;
    return build(s, &s->literals, lengths, literals) &&
           build(s, &s->distances, lengths + literals, distances);
}

/* Repeats the `length` bytes that begin `distance` before the end of the output; they may overlap. */
static bool copy(stream *s, unsigned length, unsigned distance) {
    if (distance > s->written) return bad(s, "the compressed data refer to bytes before their beginning");
    if (length > s->out_size - s->written) return bad(s, "the compressed data are longer than they say");
    unsigned char *to = s->out + s->written;
    for (unsigned i = 0; i < length; i++) to[i] = *(to + i - distance);
    s->written += length;
    return true;
}

/* A copy's length, given its symbol (257 or more), and its distance (tables of 3.2.5, computed). */
static bool coded_copy(stream *s, unsigned symbol) {
    if (symbol > 285) return bad(s, "the compressed data hold an unknown length");
    unsigned length = symbol - 254;
    if (symbol == 285) {
        length = 258;
    } else if (symbol >= 265) {
        unsigned extra = (symbol - 261) / 4;
        length = 3 + ((4 + (symbol - 265) % 4) << extra) + take(s, extra);
    }
    unsigned far = decode(s, &s->distances);
    if (far >= DISTANCES) return bad(s, "the compressed data hold an unknown distance");
    unsigned distance = far + 1;
    if (far >= 4) {
        unsigned extra = far / 2 - 1;
        distance = 1 + ((2 + far % 2) << extra) + take(s, extra);
    }
    return s->error == NULL && copy(s, length, distance);
}

static bool coded_block(stream *s) {
    for (;;) {
        unsigned symbol = decode(s, &s->literals);
        if (s->error != NULL) return false;
        if (symbol == 256) return true;
        if (symbol > 256) {
            if (!coded_copy(s, symbol)) return false;
            continue;
        }
        if (s->written == s->out_size) return bad(s, "the compressed data are longer than they say");
        s->out[s->written++] = (unsigned char)symbol;
    }
}

static bool stored_block(stream *s) {
    (void)take(s, s->held % 8);
    unsigned length = take(s, 16), complement = take(s, 16);
    if (s->error != NULL) return false;
    if (length != (complement ^ 0xffff)) return bad(s, "the compressed data hold a damaged stored block");
    if (length > s->out_size - s->written) return bad(s, "the compressed data are longer than they say");
    for (unsigned i = 0; i < length; i++) s->out[s->written++] = (unsigned char)take(s, 8);
    return s->error == NULL;
}

static void inflate_blocks(stream *s) {
    for (bool last = false; !last && s->error == NULL;) {
        last = take(s, 1) != 0;
        unsigned kind = take(s, 2);
        bool good = false;
        if (kind == 0) good = stored_block(s);
        if (kind == 1) good = fixed_codes(s) && coded_block(s);
        if (kind == 2) good = dynamic_codes(s) && coded_block(s);
        if (!good) (void)bad(s, "the compressed data hold an unknown kind of block");
    }
}

const char *inflate(const unsigned char *in, size_t in_size, unsigned char *out, size_t out_size,
                    size_t *consumed) {
    stream *s = malloc(sizeof *s);
    if (s == NULL) return "out of memory";
    s->in = in, s->in_size = in_size, s->next = 0;
    s->bits = 0, s->held = 0;
    s->out = out, s->out_size = out_size, s->written = 0;
    s->error = NULL;
    inflate_blocks(s);
    if (s->written < out_size) (void)bad(s, "the compressed data are shorter than they say");
    *consumed = s->next - s->held / 8;
    const char *error = s->error;
    free(s);
    return error;
}
