/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A debugger of another session changes what a process group counts for
 * job control: PT_ATTACH gives the tracee a parent, and by that one its
 * group is judged from then on.  A group whose leader moves into it
 * while he is traced counts as orphaned: nobody can stop it from the
 * terminal.  Any user.
 *
 *	cc traced-job-control.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/param.h>
#include <sys/kinfo.h>
#include <sys/ptrace.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* What PID's process group counts: its members whose parents are in the
 * same session and another group. */
static int
jobc(pid_t pid)
{
	static union {
		struct kinfo_proc process;
		char room[8192];
	} answer;
	int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_PID, pid};
	size_t size = sizeof(answer);

	if (sysctl(name, 4, &answer, &size, NULL, 0) < 0 || size == 0)
		err(2, "kern.proc.pid");
	return answer.process.kp_jobc;
}

int
main(void)
{
	int go[2], done[2], traced[2], counted, status;
	pid_t child, tracer;
	char byte;

	if (pipe(go) < 0 || pipe(done) < 0 || pipe(traced) < 0)
		err(2, "pipe");

	/* A child goes into a group of its own when it is told to. */
	child = fork();
	if (child == 0) {
		read(go[0], &byte, 1);
		setpgid(0, 0);
		write(done[1], "x", 1);
		for (;;)
			pause();
	}

	/* A debugger of another session attaches to it, and lets it go
	 * on. */
	tracer = fork();
	if (tracer == 0) {
		if (setsid() < 0 ||
		    ptrace(PT_ATTACH, child, NULL, 0) < 0 ||
		    waitpid(child, &status, WUNTRACED) != child ||
		    ptrace(PT_CONTINUE, child, (caddr_t)1, 0) < 0)
			_exit(2);
		write(traced[1], "x", 1);
		for (;;)
			pause();
	}
	close(traced[1]);
	if (read(traced[0], &byte, 1) != 1)
		errx(2, "nobody traces the child");
	write(go[1], "x", 1);
	read(done[0], &byte, 1);

	/* We, its parent, are in its session and in another group. */
	counted = jobc(child);
	kill(child, SIGKILL);
	kill(tracer, SIGKILL);
	if (counted != 1) {
		printf("DEFECT: the child's group counts %d where it "
		       "has a parent in its session\n",
		    counted);
		return 1;
	}
	printf("right: the child's group counts its parent\n");
	return 0;
}
