/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for a kernel whose coverage is measured: what of it is executed can be told by reading it.
 * test_coverage.py judges.
 */
#include "lib.h"

enum { EXIT_DONE = 0x11 };

void kernel_main(uint64_t modulep, uint64_t kernend);

char version[] = "DragonFly v0.0-TEST #8: Thu Jan  1 00:00:00 UTC 1970\n    nobody@nowhere:/\n";
int osreldate = 700042;
static volatile uint32_t seven = 7;

__attribute__((noinline, noreturn)) void
panic(const char *why)
{
	print(why);
	leave(EXIT_DONE + 1);
}

__attribute__((noinline)) static uint32_t
both_ways(uint32_t count)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (seven + i == 9)
			sum += seven;	/* once */
		else
			sum ^= i;
	}
	return sum;
}

__attribute__((noinline)) static uint32_t
one_way(uint32_t value)
{
	if (value != seven)
		panic("never");
	if (value == seven)
		return value + 1;
	return both_ways(value);	/* never */
}

__attribute__((noinline)) uint32_t
never(uint32_t value)
{
	return value * seven;
}

void
kernel_main(uint64_t modulep, uint64_t kernend)
{
	(void)modulep;
	(void)kernend;
	print_decimal(both_ways(5) + one_way(7));
	print("\ndone\n");
	leave(EXIT_DONE);
}
