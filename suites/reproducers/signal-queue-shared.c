/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A kqueue with EVFILT_SIGNAL that is shared by rfork(RFPROC) outlives
 * whoever waits for the signal in it.  Its note stays on the list of a
 * process that is gone; closing the queue takes it from there, out of
 * freed memory: the kernel panics, at once or later.  Any user.
 *
 *	cc signal-queue-shared.c && ./a.out
 *
 * A kernel that has the defect panics before anything is printed.  If
 * the program ends, its exit status is 0: the panic has not happened.
 */
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/event.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TURNS = 8, OTHERS = 4, STORM = 200 };

int
main(void)
{
	int turn, number, queue, end[2], status;
	struct kevent wanted;
	pid_t child, others[OTHERS];
	char byte;

	for (turn = 0; turn < TURNS; turn++) {
		/* A child that shares our descriptors opens a queue,
		 * waits for SIGUSR1 in it, and exits. */
		child = rfork(RFPROC);
		if (child == 0) {
			queue = kqueue();
			EV_SET(&wanted, SIGUSR1, EVFILT_SIGNAL, EV_ADD,
			    0, 0, NULL);
			if (kevent(queue, &wanted, 1, NULL, 0, NULL) <
			    0)
				_exit(0);
			_exit(queue);
		}
		if (child < 0 || waitpid(child, &status, 0) != child ||
		    !WIFEXITED(status))
			err(2, "rfork, waitpid");
		queue = WEXITSTATUS(status);
		if (queue < 3)
			errx(2, "the child has no queue");

		/* Other processes are given the memory it has left. */
		if (pipe(end) < 0)
			err(2, "pipe");
		for (number = 0; number < OTHERS; number++) {
			others[number] = fork();
			if (others[number] == 0) {
				close(end[1]);
				read(end[0], &byte, 1);
				_exit(0);
			}
		}

		/* The queue, which is ours as well, is closed, and with
		 * it the note. */
		close(queue);
		close(end[1]);
		for (number = 0; number < OTHERS; number++)
			waitpid(others[number], &status, 0);
		close(end[0]);
	}

	/* Signals and exits go along such lists. */
	for (number = 0; number < STORM; number++) {
		child = fork();
		if (child == 0) {
			kill(getpid(), SIGUSR1);
			_exit(0);
		}
		waitpid(child, &status, 0);
	}
	printf("right: the queues were closed, and nothing happened\n");
	return 0;
}
