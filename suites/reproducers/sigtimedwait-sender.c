/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sigtimedwait() and sigwaitinfo() tell the signal's number alone; who
 * has sent it, si_pid and si_uid, is known to the kernel and not told.
 * Any user.
 *
 *	cc sigtimedwait-sender.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int
main(void)
{
	struct timespec patience = {10, 0};
	pid_t waiter = getpid(), sender;
	sigset_t wanted;
	siginfo_t info;
	int status;

	/* A child sends us a signal, which we keep pending. */
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wanted, NULL);
	sender = fork();
	if (sender == 0)
		_exit(kill(waiter, SIGUSR1) != 0);
	if (waitpid(sender, &status, 0) != sender)
		err(2, "waitpid");

	/* We wait for it: from whom is it? */
	memset(&info, 0, sizeof(info));
	if (sigtimedwait(&wanted, &info, &patience) != SIGUSR1)
		err(2, "sigtimedwait");
	if (info.si_pid != sender) {
		printf("DEFECT: process %d has sent it, and si_pid is "
		       "%d\n",
		    sender, info.si_pid);
		return 1;
	}
	printf("right: si_pid is the sender's\n");
	return 0;
}
