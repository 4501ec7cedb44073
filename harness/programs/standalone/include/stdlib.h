/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _STDLIB_H_
#define _STDLIB_H_

#include <sys/types.h>

__attribute__((noreturn)) void exit(int status);
int posix_openpt(int flags);
int grantpt(int master);
int unlockpt(int master);
char *ptsname(int master);

#endif
