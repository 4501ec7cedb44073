/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A thread id that is none is not noticed: kern.proc.args.PID.TID tells
 * the process's arguments, and setting it sets the process's title.
 * Any user.
 *
 *	cc thread-that-is-none.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 its
 * threads have no titles.
 */
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/sysctl.h>
#include <unistd.h>

enum { NONE = 99999 };

static int wrong;

static void
judge(const char *what, int is_defect)
{
	printf("%s: %s\n", what,
	    is_defect ? "DEFECT: as if there were"
		      : "right: there is none");
	wrong += is_defect != 0;
	fflush(stdout);
}

int
main(void)
{
	int of_process[4] = {
	    CTL_KERN, KERN_PROC, KERN_PROC_ARGS, getpid()};
	int of_thread[5] = {
	    CTL_KERN, KERN_PROC, KERN_PROC_ARGS, getpid(), 1};
	static char found[4096], title[] = "another";
	size_t size = sizeof(found);

	/* Do threads have titles at all? */
	if (sysctl(of_thread, 5, found, &size, NULL, 0) < 0) {
		printf("not applicable: threads have no titles\n");
		return 77;
	}

	/* Arguments and title of thread 99999, which is none. */
	of_thread[4] = NONE;
	size = sizeof(found);
	judge("arguments",
	    sysctl(of_thread, 5, found, &size, NULL, 0) == 0 &&
		size > 0);
	sysctl(of_thread, 5, NULL, NULL, title, sizeof(title));
	size = sizeof(found);
	sysctl(of_process, 4, found, &size, NULL, 0);
	judge("title", strcmp(found, title) == 0);
	return wrong != 0;
}
