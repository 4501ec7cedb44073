/* SPDX-License-Identifier: BSD-2-Clause */
/* See lib.h. */
#include "lib.h"

static void
print_char(char c)
{
	/* A port that is not there reads as 0xff and counts as ready; one that never gets ready must not hang us. */
	for (int tries = 0; tries < 1000000 && !(port_read8(COM1_STATUS) & COM1_READY); tries++)
		;
	port_write8(COM1_DATA, (uint8_t)c);
}

void
print(const char *text)
{
	while (*text != '\0')
		print_char(*text++);
}

void
print_hex(uint64_t number)
{
	print("0x");
	for (int shift = 60; shift >= 0; shift -= 4) {
		if ((number >> shift) != 0 || shift == 0)
			print_char("0123456789abcdef"[(number >> shift) & 15]);
	}
}

void
print_decimal(uint32_t number)
{
	if (number >= 10)
		print_decimal(number / 10);
	print_char((char)('0' + number % 10));
}

void
leave(uint32_t code)
{
	port_write32(DEBUG_EXIT, code);
	for (;;)
		__asm__ volatile("cli; hlt");
}

/* Four bytes at a time: under emulation the number of iterations is what costs. */
void *
memcpy(void *to, const void *from, size_t length)
{
	void *at = to;
	size_t words = length / 4;
	size_t rest = length % 4;

	__asm__ volatile("rep movsl" : "+D"(at), "+S"(from), "+c"(words) : : "memory");
	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(rest) : : "memory");
	return to;
}

void *
memset(void *to, int byte, size_t length)
{
	void *at = to;
	size_t words = length / 4;
	size_t rest = length % 4;
	uint32_t pattern = (uint8_t)byte * 0x01010101U;

	__asm__ volatile("rep stosl" : "+D"(at), "+c"(words) : "a"(pattern) : "memory");
	__asm__ volatile("rep stosb" : "+D"(at), "+c"(rest) : "a"(pattern) : "memory");
	return to;
}

int
memcmp(const void *left, const void *right, size_t length)
{
	const uint8_t *a = left;
	const uint8_t *b = right;

	for (; length > 0; a++, b++, length--) {
		if (*a != *b)
			return *a < *b ? -1 : 1;
	}
	return 0;
}

size_t
strlen(const char *text)
{
	const char *end = text;

	/* The barrier keeps the compiler from recognising strlen() here and calling it. */
	for (; *end != '\0'; end++)
		__asm__ volatile("" : "+r"(end));
	return (size_t)(end - text);
}
