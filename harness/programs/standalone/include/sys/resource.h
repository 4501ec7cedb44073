/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_RESOURCE_H_
#define _SYS_RESOURCE_H_

#include <sys/time.h>

struct rusage {
	struct timeval ru_utime, ru_stime;
	long ru_maxrss, ru_ixrss, ru_idrss, ru_isrss, ru_minflt, ru_majflt, ru_nswap, ru_inblock, ru_oublock, ru_msgsnd,
		ru_msgrcv, ru_nsignals, ru_nvcsw, ru_nivcsw;
};
struct __wrusage {
	struct rusage wru_self, wru_children;
};
#define RUSAGE_SELF 0
#define PRIO_PROCESS 0
#define PRIO_PGRP 1

int getrusage(int who, struct rusage *usage);
int ioprio_get(int which, int who);
int ioprio_set(int which, int who, int priority);

#endif
