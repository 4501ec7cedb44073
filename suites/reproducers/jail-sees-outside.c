/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A jailed process learns of processes outside of its jail, which are
 * to be nobody to it: their groups and sessions, priorities, program,
 * arguments and directory, and by kill() whether a pid is in use.
 *
 *	cc jail-sees-outside.c && ./a.out		(as root)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/jail.h>
#include <sys/rtprio.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int wrong;

static void
judge(const char *what, int learnt)
{
	printf("%s: %s\n", what,
	    learnt ? "DEFECT: learnt" : "right: not learnt");
	wrong += learnt != 0;
	fflush(stdout);
}

/* Whether a node of kern.proc tells anything of PID. */
static int
is_told(int node, pid_t pid)
{
	int name[4] = {CTL_KERN, KERN_PROC, node, pid};
	static char room[4096];
	size_t size = sizeof(room);

	return sysctl(name, 4, room, &size, NULL, 0) == 0 && size > 0;
}

int
main(void)
{
	struct jail wanted;
	struct rtprio priority;
	pid_t outside = getpid(), jailed;
	int status;

	memset(&wanted, 0, sizeof(wanted));
	wanted.version = 1;
	wanted.path = (char *)"/";
	wanted.hostname = (char *)"jail";

	/* A child goes into a jail, and asks about us, who are outside.
	 */
	jailed = fork();
	if (jailed == 0) {
		if (jail(&wanted) < 0) {
			printf("not applicable: be root\n");
			fflush(stdout);
			_exit(77);
		}
		judge("getpgid()", getpgid(outside) != -1);
		judge("getsid()", getsid(outside) != -1);
		judge("rtprio()",
		    rtprio(RTP_LOOKUP, outside, &priority) == 0);
		judge("kern.proc.pathname",
		    is_told(KERN_PROC_PATHNAME, outside));
		judge("kern.proc.args", is_told(KERN_PROC_ARGS,
		    outside));
		judge("kern.proc.cwd", is_told(KERN_PROC_CWD, outside));
		judge("kill(pid, 0)",
		    kill(outside, 0) == 0 || errno != ESRCH);
		judge("kill(pid, SIGCONT)", kill(outside,
		    SIGCONT) == 0);
		_exit(wrong != 0);
	}
	if (waitpid(jailed, &status, 0) != jailed || !WIFEXITED(status))
		err(2, "waitpid");
	return WEXITSTATUS(status);
}
