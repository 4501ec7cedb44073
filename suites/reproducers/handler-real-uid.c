/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A signal handler is told the effective user of whoever has sent the
 * signal, where POSIX has the real one (si_uid).
 *
 *	cc handler-real-uid.c && ./a.out		(as root)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile pid_t sent_by;
static volatile uid_t sent_as;

static void
hear(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	sent_by = info->si_pid;
	sent_as = info->si_uid;
}

int
main(void)
{
	struct sigaction wanted;
	pid_t hearer = getpid(), sender;
	int status;

	if (getuid() != 0) {
		printf("not applicable: be root\n");
		return 77;
	}
	memset(&wanted, 0, sizeof(wanted));
	wanted.sa_sigaction = hear;
	wanted.sa_flags = SA_SIGINFO | SA_RESTART;
	sigaction(SIGUSR1, &wanted, NULL);

	/* A process of user 61001, who acts as root, signals us. */
	sender = fork();
	if (sender == 0) {
		setreuid(61001, 0);
		_exit(kill(hearer, SIGUSR1) != 0);
	}
	if (waitpid(sender, &status, 0) != sender || status != 0)
		errx(2, "no signal was sent");
	if (sent_by != sender) {
		printf("not applicable: handlers are not told who "
		       "sends\n");
		return 77;
	}
	if (sent_as != 61001) {
		printf("DEFECT: si_uid is %u, and the sender 61001\n",
		    sent_as);
		return 1;
	}
	printf("right: si_uid is the sender's real user\n");
	return 0;
}
