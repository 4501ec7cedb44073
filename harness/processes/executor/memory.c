/* SPDX-License-Identifier: BSD-2-Clause */
#include "executor.h"

/* The compiler may call these two by itself. */
void *memcpy(void *to, const void *from, u64 length)
{
	void *start_of = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
	return start_of;
}

void *memset(void *to, int value, u64 length)
{
	void *start_of = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(value) : "memory");
	return start_of;
}
