/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _STDIO_H_
#define _STDIO_H_

#include <sys/types.h>

/* There are no buffers. */
typedef struct __file FILE;
extern FILE *stdout;
int fflush(FILE *stream);
__attribute__((format(printf, 1, 2))) int printf(const char *format, ...);
__attribute__((format(printf, 3, 4))) int snprintf(char *to, size_t size, const char *format, ...);
int rename(const char *old, const char *new);

#endif
