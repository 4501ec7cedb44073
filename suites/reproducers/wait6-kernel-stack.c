/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wait6(WNOHANG) with nothing to report copies out a siginfo_t that
 * nobody has filled: what lay on the kernel's stack.  POSIX wants
 * si_signo and si_pid to be 0 then.  Any user.
 *
 *	cc wait6-kernel-stack.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * wait6().
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static void
no_such_call(int signal)
{
	(void)signal;
	_exit(77);
}

int
main(void)
{
	siginfo_t info;
	int end[2], status, turn;
	pid_t child;
	char byte;

	signal(SIGSYS, no_such_call);
	if (pipe(end) < 0)
		err(2, "pipe");
	child = fork();
	if (child == 0) {
		close(end[1]);
		/* until we have ended */
		read(end[0], &byte, 1);
		_exit(0);
	}
	for (turn = 0; turn < 10; turn++) {
		memset(&info, 0, sizeof(info));
		if (wait6(P_PID, child, &status, WEXITED | WNOHANG,
			NULL, &info) != 0)
			err(2, "wait6");
		if (info.si_signo != 0 || info.si_pid != 0) {
			printf("DEFECT: of a wait in vain, si_signo is "
			       "%d (%x) and si_pid %d (%x): of the "
			       "kernel's stack\n",
			    info.si_signo, (unsigned int)info.si_signo,
			    info.si_pid, (unsigned int)info.si_pid);
			return 1;
		}
	}
	printf("right: a wait in vain reports nobody\n");
	return 0;
}
