/* Command lines: `--name value` or `--name=value`, and file names. */
#ifndef CNNC_RUNTIME_ARGS_H
#define CNNC_RUNTIME_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An option that takes a value; `value` stays NULL when it is not given. */
typedef struct {
    const char *name;
    const char *value;
} option;

/* Whether --help or -h is among the arguments. */
bool args_want_help(int argc, char **argv);

/* Fills in the options' values and the `file_count` file names; `files_text` names the latter in messages. */
void args_parse(int argc, char **argv, option *options, size_t option_count, const char **files,
                size_t file_count, const char *files_text);

/* The option's value as a whole number from low to high, or `fallback` when it was not given. */
uint64_t args_integer(const option *given, uint64_t fallback, uint64_t low, uint64_t high);

/* The option's value as a float of at least 0, or `fallback`. Read in double precision and rounded
   once more, as Python's numpy.float32(float(text)) does. */
float args_float(const option *given, float fallback);

#endif
