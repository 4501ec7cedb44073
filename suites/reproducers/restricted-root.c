/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A root that has given up root's powers (syscap_set()) signals
 * processes of others and traces unrestricted ones, by which it is free
 * again.
 *
 *	cc restricted-root.c && ./a.out		(as root)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * syscap_set().
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/ptrace.h>
#include <unistd.h>

/* syscap_set() is system call 456 since October 2023. */
enum { SYSCAP_SET = 456, RESTRICTEDROOT = 0x01, TRESPASS = 0x20 };
enum { SELF = 1 };

static void
no_such_call(int signal)
{
	(void)signal;
	_exit(77);
}

static int wrong;

static void
judge(const char *what, int done)
{
	printf("%s: %s\n", what,
	    done ? "DEFECT: done" : "right: refused");
	wrong += done != 0;
	fflush(stdout);
}

static pid_t
idle(int end[2], uid_t user)
{
	pid_t child = fork();
	char byte;

	if (child == 0) {
		close(end[1]);
		if (user != 0)
			setuid(user);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	return child;
}

int
main(void)
{
	pid_t roots, somebodys;
	int end[2];

	signal(SIGSYS, no_such_call);
	if (getuid() != 0) {
		printf("not applicable: be root\n");
		return 77;
	}
	if (pipe(end) < 0)
		err(2, "pipe");

	/* A process of root's, and one of another user. */
	roots = idle(end, 0);
	somebodys = idle(end, 61001);
	/* there is no telling from here when it has changed its user */
	usleep(200000);

	/* We give up root's powers, and that over others' processes. */
	if (syscall(SYSCAP_SET, RESTRICTEDROOT, SELF, NULL, 0L) < 0 ||
	    syscall(SYSCAP_SET, TRESPASS, SELF, NULL, 0L) < 0) {
		printf("not applicable: there is no syscap_set()\n");
		return 77;
	}
	judge("signalling another user's", kill(somebodys, 0) == 0);
	judge("tracing an unrestricted root",
	    ptrace(PT_ATTACH, roots, NULL, 0) == 0);
	return wrong != 0;
}
