/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kern.proc.pathname uses what an exiting process has given up already
 * (p_fd): asking for the program of one that is about to exit panics
 * the kernel.  Any user; it takes several CPUs.
 *
 *	cc pathname-of-exiting.c && ./a.out
 *
 * A kernel that has the defect panics before anything is printed,
 * within some seconds.  If the program ends, its exit status is 0: the
 * panic has not happened, which on a machine with one CPU says nothing.
 */
#include <err.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/mman.h>
#include <sys/sysctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 40, READERS = 3, MEMORY = 64 << 20 };

/* Ask for the program of PID until there is none of that number any
 * more, or it is a zombie. */
static void
ask_for(pid_t pid)
{
	int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_PATHNAME, pid};
	char path[1024];
	size_t size;

	do
		size = sizeof(path);
	while (sysctl(name, 4, path, &size, NULL, 0) == 0);
}

int
main(void)
{
	int number, each, ready[2], go[2], status;
	pid_t child, readers[READERS];
	char byte, *memory;
	size_t at;

	for (number = 0; number < CHILDREN; number++) {
		if (pipe(ready) < 0 || pipe(go) < 0)
			err(2, "pipe");

		/* A child with so much memory that it takes a while to
		 * exit. */
		child = fork();
		if (child == 0) {
			memory =
			    mmap(NULL, MEMORY, PROT_READ | PROT_WRITE,
				MAP_ANON | MAP_PRIVATE, -1, 0);
			for (at = 0;
			    memory != MAP_FAILED && at < MEMORY;
			    at += 4096)
				memory[at] = 1;
			write(ready[1], "x", 1);
			read(go[0], &byte, 1);
			_exit(0);
		}
		read(ready[0], &byte, 1);

		/* Others ask for its program all the time. */
		for (each = 0; each < READERS; each++) {
			readers[each] = fork();
			if (readers[each] == 0) {
				ask_for(child);
				_exit(0);
			}
		}

		/* It exits after a moment. */
		usleep(50000);
		write(go[1], "x", 1);
		for (each = 0; each < READERS; each++)
			waitpid(readers[each], &status, 0);
		if (waitpid(child, &status, 0) != child)
			err(2, "waitpid");
		close(ready[0]), close(ready[1]), close(go[0]),
		    close(go[1]);
	}
	printf("right: asking for the program of %d exiting processes "
	       "has harmed nobody\n",
	    CHILDREN);
	return 0;
}
