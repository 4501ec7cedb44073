/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Root in a jail does what jails must not: it sets priorities of
 * processes outside, mounts file systems, opens raw sockets, and sets
 * variables of the whole system.
 *
 *	cc jail-root-outside.c && ./a.out		(as root)
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it cannot
 * be tried.
 */
#include <err.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/jail.h>
#include <sys/mount.h>
#include <sys/rtprio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int wrong;

static void
judge(const char *what, int done)
{
	printf("%s: %s\n", what,
	    done ? "DEFECT: done" : "right: refused");
	wrong += done != 0;
	fflush(stdout);
}

int
main(void)
{
	struct jail wanted;
	struct rtprio normal = {RTP_PRIO_NORMAL, 0};
	pid_t outside = getpid(), jailed;
	int status, random;
	size_t size = sizeof(random);

	memset(&wanted, 0, sizeof(wanted));
	wanted.version = 1;
	wanted.path = (char *)"/";
	wanted.hostname = (char *)"jail";
	sysctlbyname("kern.randompid", &random, &size, NULL, 0);
	mkdir("mounted-here", 0755);

	/* A child goes into a jail, and is root there. */
	jailed = fork();
	if (jailed == 0) {
		if (jail(&wanted) < 0) {
			printf("not applicable: be root\n");
			fflush(stdout);
			_exit(77);
		}
		judge("rtprio() of a process outside",
		    rtprio(RTP_SET, outside, &normal) == 0);
		judge("mounting procfs",
		    mount("procfs", "mounted-here", 0, NULL) == 0);
		judge("a raw socket", socket(AF_INET, SOCK_RAW,
		    1) >= 0);
		judge("kern.randompid",
		    sysctlbyname("kern.randompid", NULL, NULL, &random,
			sizeof(random)) == 0);
		_exit(wrong != 0);
	}
	if (waitpid(jailed, &status, 0) != jailed || !WIFEXITED(status))
		err(2, "waitpid");
	unmount("mounted-here", MNT_FORCE);
	rmdir("mounted-here");
	return WEXITSTATUS(status);
}
