/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * With security.ps_showallprocs=0 the processes of others are hidden,
 * and yet kern.proc.pid tells of them, and kqueue() watches them, for
 * whoever knows a pid.
 *
 *	cc hidden-processes.c && ./a.out		(as root)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.
 */
#include <err.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/event.h>
#include <sys/param.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

int
main(void)
{
	int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_PID, getpid()},
	    hidden = 0, before, status, wrong = 0;
	size_t size = sizeof(before);
	static char room[8192];
	struct kevent event;
	pid_t user;

	if (sysctlbyname("security.ps_showallprocs", &before, &size,
		&hidden, sizeof(hidden)) < 0) {
		printf("not applicable: be root\n");
		return 77;
	}

	/* An ordinary user knows our pid. */
	user = fork();
	if (user == 0) {
		setuid(61001);
		size = sizeof(room);
		if (sysctl(name, 4, room, &size, NULL, 0) == 0 &&
		    size > 0) {
			printf("DEFECT: kern.proc.pid tells of a "
			       "hidden process\n");
			wrong = 1;
		}
		EV_SET(&event, (uintptr_t)name[3], EVFILT_PROC, EV_ADD,
		    NOTE_EXIT, 0, NULL);
		if (kevent(kqueue(), &event, 1, NULL, 0, NULL) == 0) {
			printf("DEFECT: kqueue() watches a hidden "
			       "process\n");
			wrong = 1;
		}
		fflush(stdout);
		_exit(wrong);
	}
	if (waitpid(user, &status, 0) != user)
		err(2, "waitpid");
	sysctlbyname("security.ps_showallprocs", NULL, NULL, &before,
	    sizeof(before));
	if (WEXITSTATUS(status) == 0)
		printf("right: who is hidden cannot be found by his "
		       "pid\n");
	return WEXITSTATUS(status);
}
