/* Messages of the built programs. Text that came from a file may hold anything, so control
   characters are replaced: a message stays one line. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *program = "program";

void error_program(const char *argv0) {
    if (argv0 == NULL || *argv0 == '\0') return;
    const char *slash = strrchr(argv0, '/');
    program = slash != NULL ? slash + 1 : argv0;
}

const char *error_program_name(void) { return program; }

static void print_line(const char *path, const char *format, va_list arguments) {
    char text[2048];
    (void)vsnprintf(text, sizeof text, format, arguments);
    for (char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    }
    fprintf(stderr, "%s: %s%s%s", program, path != NULL ? path : "", path != NULL ? ": " : "", text);
}

void fail(const char *path, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_line(path, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

void fail_usage(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_line(NULL, format, arguments);
    va_end(arguments);
    fprintf(stderr, "; %s --help explains\n", program);
    exit(EXIT_USAGE);
}
