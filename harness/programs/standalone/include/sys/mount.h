/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_MOUNT_H_
#define _SYS_MOUNT_H_

#include <sys/types.h>

#define MNT_FORCE 0x00080000

int mount(const char *type, const char *path, int flags, void *data);
int unmount(const char *path, int flags);

#endif
