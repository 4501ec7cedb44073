/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_IOCTL_H_
#define _SYS_IOCTL_H_

#define TIOCSCTTY 0x20007461ul

int ioctl(int fd, unsigned long request, ...);

#endif
