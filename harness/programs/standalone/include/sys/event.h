/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _SYS_EVENT_H_
#define _SYS_EVENT_H_

#include <signal.h>

#define EVFILT_PROC (-5)
#define EVFILT_SIGNAL (-6)
#define EV_ADD 1
#define NOTE_EXIT 0x80000000u

struct kevent {
	uintptr_t ident;
	short filter;
	u_short flags;
	u_int fflags;
	intptr_t data;
	void *udata;
};
#define EV_SET(event, a, b, c, d, e, f) (*(event) = (struct kevent){ (a), (b), (c), (d), (e), (f) })

int kqueue(void);
int kevent(int queue, const struct kevent *changes, int count, struct kevent *events, int room,
	const struct timespec *time);

#endif
