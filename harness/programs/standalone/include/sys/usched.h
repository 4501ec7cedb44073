/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_USCHED_H_
#define _SYS_USCHED_H_

#include <sys/types.h>

#define USCHED_SET_CPU 1

int usched_set(pid_t pid, int command, void *data, int size);

#endif
