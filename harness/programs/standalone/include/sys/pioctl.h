/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_PIOCTL_H_
#define _SYS_PIOCTL_H_

struct procfs_status {
	int state, flags;
	unsigned long events;
	int why;
	unsigned long val;
};
#define PIOCBIS 0x80007001ul
#define PIOCSFL 0x80007003ul
#define PIOCWAIT 0x40207004ul
#define PIOCCONT 0x80007005ul
#define S_EXEC 0x01
#define S_SIG 0x02
#define S_CORE 0x10
#define S_EXIT 0x20
#define PF_LINGER 1

#endif
