/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_PTRACE_H_
#define _SYS_PTRACE_H_

#include <sys/types.h>

#define PT_TRACE_ME 0
#define PT_CONTINUE 7
#define PT_KILL 8
#define PT_ATTACH 10
#define PT_DETACH 11

int ptrace(int request, pid_t pid, caddr_t address, int data);

#endif
