/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PROC_PDEATHSIG_CTL drops signals that there are none of, and reports
 * success, where the manual has EINVAL. Any user.
 *
 *	cc pdeathsig-range.c && ./a.out
 *
 * Exit status: 0 the kernel is right, 1 it has the defect, 77 it has no
 * PROC_PDEATHSIG_CTL.
 */
#include <stdio.h>
#include <sys/types.h>
#include <sys/procctl.h>

#ifndef PROC_PDEATHSIG_CTL
#define PROC_PDEATHSIG_CTL 4
#define PROC_PDEATHSIG_STATUS 5
#endif

int
main(void)
{
	int signals[] = {-1, 129, 999}, signal, number, wrong = 0;

	if (procctl(P_PID, 0, PROC_PDEATHSIG_STATUS, &signal) < 0) {
		printf("not applicable: no PROC_PDEATHSIG_CTL\n");
		return 77;
	}
	for (number = 0; number < 3; number++)
		if (procctl(P_PID, 0, PROC_PDEATHSIG_CTL,
			&signals[number]) == 0) {
			printf("DEFECT: signal %d is taken\n",
			    signals[number]);
			wrong = 1;
		}
	if (wrong == 0)
		printf("right: what is no signal is refused\n");
	return wrong;
}
