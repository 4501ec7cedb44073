/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _FCNTL_H_
#define _FCNTL_H_

#include <sys/types.h>

#define O_RDONLY 0
#define O_WRONLY 1
#define O_RDWR 2
#define O_CREAT 0x0200
#define O_NOCTTY 0x8000
#define F_GETOWN 5
#define F_SETOWN 6

int open(const char *path, int flags, ...);
int fcntl(int fd, int command, ...);

#endif
