/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_RTPRIO_H_
#define _SYS_RTPRIO_H_

#include <sys/types.h>

#define RTP_PRIO_NORMAL 1
#define RTP_PRIO_IDLE 2
#define RTP_LOOKUP 0
#define RTP_SET 1

struct rtprio {
	u_short type, prio;
};

int rtprio(int function, pid_t pid, struct rtprio *priority);
int lwp_rtprio(int function, pid_t pid, lwpid_t tid, struct rtprio *priority);

#endif
