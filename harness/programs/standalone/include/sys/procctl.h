/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_PROCCTL_H_
#define _SYS_PROCCTL_H_

#include <sys/types.h>

#define PROC_REAP_ACQUIRE 1
#define PROC_REAP_RELEASE 2
#define PROC_REAP_STATUS 3
#define PROC_PDEATHSIG_CTL 4
#define PROC_PDEATHSIG_STATUS 5
#define PROC_REAP_KILL 6

struct reaper_kill {
	uint32_t flags;
	int signal;
	uint32_t killed;
	pid_t pid_failed;
};
#define REAPER_KILL_CHILDREN 1

int procctl(idtype_t type, id_t id, int command, void *data);

#endif
