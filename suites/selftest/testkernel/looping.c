/* SPDX-License-Identifier: BSD-2-Clause */
/* Stands in for a kernel that runs for ever, to be stopped at its points.  test_debugger.py judges. */
#include "lib.h"

void kernel_main(uint64_t modulep, uint64_t kernend);
void point(void);
void other_point(void);
void elsewhere(void);

char version[] = "DragonFly v0.0-TEST #9: Thu Jan  1 00:00:00 UTC 1970\n    nobody@nowhere:/\n";
int osreldate = 700042;
volatile uint64_t turns, others, diverted, within;

__attribute__((noinline)) void
point(void)
{
	turns++;
}

__attribute__((noinline)) void
other_point(void)
{
	others++;
}

__attribute__((noinline)) void
elsewhere(void)
{
	diverted++;
}

static inline __attribute__((always_inline)) void
inlined_twice(void)
{
	within++;
}

void
kernel_main(uint64_t modulep, uint64_t kernend)
{
	(void)modulep;
	(void)kernend;
	for (;;) {
		point();
		inlined_twice();
		other_point();
		inlined_twice();
	}
}
