/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_IOCTL_H_
#define _SYS_IOCTL_H_

int ioctl(int fd, unsigned long request, ...);

#endif
