/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_WAIT_H_
#define _SYS_WAIT_H_

#include <signal.h>
#include <sys/resource.h>

#define WNOHANG 1
#define WUNTRACED 2
#define WCONTINUED 4
#define WNOWAIT 8
#define WEXITED 16
#define WIFSTOPPED(status) (((status) & 0177) == 0177)
#define WIFCONTINUED(status) ((status) == SIGCONT)
#define WIFEXITED(status) (((status) & 0177) == 0)
#define WIFSIGNALED(status) (!WIFSTOPPED(status) && !WIFCONTINUED(status) && !WIFEXITED(status))
#define WSTOPSIG(status) ((status) >> 8)
#define WTERMSIG(status) ((status) & 0177)
#define WEXITSTATUS(status) ((status) >> 8)

pid_t wait(int *status);
pid_t waitpid(pid_t pid, int *status, int options);
pid_t wait4(pid_t pid, int *status, int options, struct rusage *usage);
pid_t wait6(idtype_t type, id_t id, int *status, int options, struct __wrusage *usage, siginfo_t *info);

#endif
