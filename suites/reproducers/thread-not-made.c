/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A thread whose number cannot be stored (lwp_create() with a bad
 * address) is taken back, but for its reference to the credentials:
 * they are never freed, nor is the jail they belong to.  Any user can
 * do it; a jail makes it visible here.
 *
 *	cc thread-not-made.c && ./a.out		(as root)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/jail.h>
#include <sys/lwp.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

static char stack[16384];

static void
never_run(void *nothing)
{
	(void)nothing;
	_exit(3);
}

/* How many bytes the list of jails has. */
static size_t
listed(void)
{
	static char list[8192];
	size_t size = sizeof(list);

	if (sysctlbyname("jail.list", list, &size, NULL, 0) < 0)
		err(2, "jail.list");
	return size;
}

int
main(void)
{
	lwpid_t *nowhere = (lwpid_t *)8;
	struct lwp_params thread = {never_run, NULL,
	    stack + sizeof(stack) - 8, nowhere, nowhere};
	struct jail wanted;
	int status, tries;
	pid_t jailed;

	memset(&wanted, 0, sizeof(wanted));
	wanted.version = 1;
	wanted.path = (char *)"/";
	wanted.hostname = (char *)"jail";
	if (getuid() != 0 || listed() != 0) {
		printf("not applicable: be root, where no jails are\n");
		return 77;
	}

	/* A child goes into a jail, where a thread cannot be made, and
	 * exits. */
	jailed = fork();
	if (jailed == 0) {
		if (jail(&wanted) < 0)
			_exit(2);
		if (lwp_create(&thread) == 0 || errno != EFAULT)
			_exit(3);
		_exit(0);
	}
	if (waitpid(jailed, &status, 0) != jailed || status != 0)
		errx(2, "no EFAULT in a jail (status %x)",
		    (unsigned int)status);

	/* With its last process a jail ends, be it a little later. */
	for (tries = 0; tries < 50 && listed() != 0; tries++)
		usleep(100000);
	if (listed() != 0) {
		printf("DEFECT: 5 s after its only process has ended "
		       "there is still the jail\n");
		return 1;
	}
	printf("right: the jail ends with its last process\n");
	return 0;
}
