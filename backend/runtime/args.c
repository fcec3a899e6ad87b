#include "args.h"

#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

bool args_want_help(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    }
    return false;
}

static option *find_option(option *options, size_t count, const char *name, size_t length) {
    for (size_t i = 0; i < count; i++) {
        if (strlen(options[i].name) == length && strncmp(options[i].name, name, length) == 0)
            return &options[i];
    }
    fail_usage("unknown option %.*s", (int)length, name);
}

/* Reads the option at argv[*at] and leaves *at at its last argument. */
static void parse_option(int argc, char **argv, int *at, option *options, size_t option_count) {
    const char *text = argv[*at];
    const char *equals = strchr(text, '=');
    size_t length = equals != NULL ? (size_t)(equals - text) : strlen(text);
    option *found = find_option(options, option_count, text, length);
    if (found->value != NULL) fail_usage("%s is given twice", found->name);
    if (equals == NULL && *at + 1 >= argc) fail_usage("%s needs a value", found->name);
    found->value = equals != NULL ? equals + 1 : argv[++*at];
}

void args_parse(int argc, char **argv, option *options, size_t option_count, const char **files,
                size_t file_count, const char *files_text) {
    size_t found = 0;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-' && argv[i][1] != '\0') {
            parse_option(argc, argv, &i, options, option_count);
            continue;
        }
        if (found == file_count) fail_usage("unexpected argument %s", argv[i]);
        files[found++] = argv[i];
    }
    if (found < file_count)
        fail_usage("expected %s, found %zu of %zu file names", files_text, found, file_count);
}

uint64_t args_integer(const option *given, uint64_t fallback, uint64_t low, uint64_t high) {
    const char *text = given->value;
    if (text == NULL) return fallback;
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    bool is_number = text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
    if (!is_number || value < low || value > high) {
        fail_usage("%s %s: expected a whole number from %" PRIu64 " to %" PRIu64, given->name, text, low,
                   high);
    }
    return value;
}

float args_float(const option *given, float fallback) {
    const char *text = given->value;
    if (text == NULL) return fallback;
    char *end = NULL;
    double value = strtod(text, &end);
    bool in_range = value >= 0.0 && value <= (double)FLT_MAX; /* false for a NaN */
    if (end == text || *end != '\0' || !in_range) {
        fail_usage("%s %s: expected a number of at least 0", given->name, text);
    }
    return (float)value;
}
