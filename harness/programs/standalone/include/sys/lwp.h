/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_LWP_H_
#define _SYS_LWP_H_

#include <sys/types.h>

struct lwp_params {
	void (*lwp_func)(void *);
	void *lwp_arg, *lwp_stack;
	lwpid_t *lwp_tid1, *lwp_tid2;
};

int lwp_create(struct lwp_params *wanted);
lwpid_t lwp_gettid(void);
int lwp_kill(pid_t pid, lwpid_t tid, int signal);
int lwp_getname(lwpid_t tid, char *name, size_t size);

#endif
