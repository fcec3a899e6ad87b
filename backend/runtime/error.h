/* Messages of the built programs: one line on standard error, `PROGRAM: FILE: what is wrong`. */
#ifndef CNNC_RUNTIME_ERROR_H
#define CNNC_RUNTIME_ERROR_H

enum { EXIT_USAGE = 2 };

/* Remembers the program's name, the beginning of every message. Call first. */
void error_program(const char *argv0);
const char *error_program_name(void);

/* Prints the message and exits with status 1. `path` is the file it is about, or NULL. */
_Noreturn void fail(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for a wrong command line: exits with EXIT_USAGE and points to --help. */
_Noreturn void fail_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
