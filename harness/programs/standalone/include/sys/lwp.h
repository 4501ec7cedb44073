/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_LWP_H_
#define _SYS_LWP_H_

#include <sys/types.h>

lwpid_t lwp_gettid(void);
int lwp_kill(pid_t pid, lwpid_t tid, int signal);
int lwp_getname(lwpid_t tid, char *name, size_t size);

#endif
