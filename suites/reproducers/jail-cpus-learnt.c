/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Root in a jail learns on which CPUs the processes outside may run:
 * lwp_getaffinity() looks at no prison.
 *
 *	cc jail-cpus-learnt.c && ./a.out		(as root)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/jail.h>
#include <sys/wait.h>
#include <unistd.h>

/* Its number, as its headers differ from year to year. */
enum { LWP_GETAFFINITY = 545 };
static const long all_threads = -1;

static void
no_such_call(int signal)
{
	(void)signal;
	_exit(77);
}

int
main(void)
{
	unsigned long cpus[4]; /* 256 CPUs, a bit for each */
	long outside = getpid();
	struct jail wanted;
	int done, status;
	pid_t jailed;

	signal(SIGSYS, no_such_call);
	memset(&wanted, 0, sizeof(wanted));
	wanted.version = 1;
	wanted.path = (char *)"/";
	wanted.hostname = (char *)"jail";

	/* Outside it is allowed. */
	if (syscall(LWP_GETAFFINITY, outside, all_threads, cpus) < 0) {
		printf("not applicable: no lwp_getaffinity()\n");
		return 77;
	}

	/* A child goes into a jail, and is root there. */
	jailed = fork();
	if (jailed == 0) {
		if (jail(&wanted) < 0) {
			printf("not applicable: be root\n");
			fflush(stdout);
			_exit(77);
		}
		done = syscall(LWP_GETAFFINITY, outside, all_threads,
		    cpus) == 0;
		printf("the CPUs of a process outside: %s\n",
		    done ? "DEFECT: done" : "right: refused");
		fflush(stdout);
		_exit(done);
	}
	if (waitpid(jailed, &status, 0) != jailed || !WIFEXITED(status))
		err(2, "waitpid");
	return WEXITSTATUS(status);
}
