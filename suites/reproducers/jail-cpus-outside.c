/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Root in a jail moves the processes outside to other CPUs since the
 * capabilities of 2023: lwp_setaffinity() looks at no prison.
 *
 *	cc jail-cpus-outside.c && ./a.out		(as root)
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

/* Numbers of the calls: their headers differ from year to year. */
enum { LWP_SETAFFINITY = 544, LWP_GETAFFINITY = 545 };
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

	/* The CPUs we may run on: these are set again, so that nobody
	 * is moved. */
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
		done = syscall(LWP_SETAFFINITY, outside, all_threads,
		    cpus) == 0;
		printf("setting the CPUs of a process outside: %s\n",
		    done ? "DEFECT: done" : "right: refused");
		fflush(stdout);
		_exit(done);
	}
	if (waitpid(jailed, &status, 0) != jailed || !WIFEXITED(status))
		err(2, "waitpid");
	return WEXITSTATUS(status);
}
