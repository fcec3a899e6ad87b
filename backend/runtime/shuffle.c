#include "shuffle.h"

#include <stdlib.h>

#include "memory.h"

/* splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014. */
static uint64_t next_number(shuffle *s) {
    uint64_t z = s->state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

shuffle shuffle_create(uint64_t seed, size_t count) {
    shuffle s = {seed, count, memory_array(count, sizeof *s.order)};
    for (size_t i = 0; i < count; i++) s.order[i] = i;
    return s;
}

void shuffle_epoch(shuffle *s) {
    for (size_t i = s->count; i-- > 1;) {
        size_t j = (size_t)(next_number(s) % (i + 1));
        size_t held = s->order[i];
        s->order[i] = s->order[j];
        s->order[j] = held;
    }
}

void shuffle_free(shuffle *s) {
    free(s->order);
    s->order = NULL;
}
