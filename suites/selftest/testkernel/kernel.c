/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for a DragonFly kernel: looks at everything the boot stub hands over the way the kernel does, through
 * addresses at KERNBASE, and reports it on COM1, a line per fact.  test_directboot.py judges.
 */
#include "lib.h"

#define KERNEL_BASE 0xffffffff80000000UL

enum { EXIT_DONE = 0x11, EXIT_LOST = 0x12, RECORDS_MAX = 100 };
enum { SYMBOLS_START = 0x8003, SYMBOLS_END = 0x8004, ENVIRONMENT = 0x8006 };

struct symbol {
	uint32_t name;
	uint8_t info, other;
	uint16_t section;
	uint64_t value, size;
};

void kernel_main(uint64_t modulep, uint64_t kernend);
void marker_function(void);

extern volatile uint8_t large[];

extern char bss_begin[], bss_end[];

char version[] = "DragonFly v0.0-TEST #7: Thu Jan  1 00:00:00 UTC 1970\n    nobody@nowhere:/\n";
int osreldate = 700042;
static volatile uint32_t initialised = 0x12345678;
volatile uint8_t large[3 << 20];		/* makes bss larger than the file */

void
marker_function(void)
{
	__asm__ volatile("nop");
}

static void
fact(const char *name, uint64_t number)
{
	print(name);
	print(" ");
	print_hex(number);
	print("\n");
}

static uint32_t
checksum(const uint8_t *data, uint64_t size)
{
	uint32_t sum = 2166136261U;	/* FNV-1a */

	for (uint64_t i = 0; i < size; i++)
		sum = (sum ^ data[i]) * 16777619U;
	return sum;
}

static int
equal(const char *left, const char *right)
{
	return strlen(left) == strlen(right) && memcmp(left, right, strlen(left)) == 0;
}

static void
report_cpu(void)
{
	uint64_t cr0, cr4, flags;
	uint32_t efer, high;
	uint16_t code;

	__asm__ volatile("movq %%cr0, %0" : "=r"(cr0));
	__asm__ volatile("movq %%cr4, %0" : "=r"(cr4));
	__asm__ volatile("rdmsr" : "=a"(efer), "=d"(high) : "c"(0xc0000080));
	__asm__ volatile("pushfq; popq %0" : "=r"(flags));
	__asm__ volatile("movw %%cs, %0" : "=r"(code));
	fact("cr0", cr0);
	fact("cr4", cr4);
	fact("efer", efer);
	fact("flags", flags);
	fact("cs", code);
}

/* How many entries the page tables have, in the highest table and in the one for KERNEL_BASE. */
static void
report_tables(void)
{
	const uint64_t *level4, *level3;
	uint64_t entries4 = 0, entries3 = 0;

	__asm__ volatile("movq %%cr3, %0" : "=r"(level4));
	level4 = (const uint64_t *)((uint64_t)level4 + KERNEL_BASE);
	level3 = (const uint64_t *)((level4[511] & ~0xfffUL) + KERNEL_BASE);
	for (int i = 0; i < 512; i++) {
		entries4 += level4[i] != 0;
		entries3 += level3[i] != 0;
	}
	fact("entries-level4", entries4);
	fact("entries-level3", entries3);
}

static void
report_memory(void)
{
	uint64_t dirty = 0;
	volatile uint32_t *low = (volatile uint32_t *)((uint64_t)&initialised - KERNEL_BASE);

	for (const char *at = bss_begin; at < bss_end; at++) {
		/* the stack is part of bss, and in use */
		if ((at < (char *)__builtin_frame_address(0) - 8192 || at > (char *)__builtin_frame_address(0) + 8192) && *at)
			dirty++;
	}
	large[sizeof(large) - 1] = 1;
	fact("bss-size", (uint64_t)(bss_end - bss_begin));
	fact("bss-dirty", dirty);
	fact("data", initialised);
	fact("data-physical", *low);
	initialised = 0x9abcdef0;
	fact("data-alias", *low);
}

static void
report_symbols(uint64_t begin, uint64_t end)
{
	const uint8_t *at = (const uint8_t *)(begin + KERNEL_BASE);
	uint64_t size = *(const uint64_t *)at;
	const struct symbol *symbols = (const struct symbol *)(at + 8);
	const char *strings;
	uint64_t strings_size;

	fact("symbols-size", size);
	fact("symbols-sum", checksum(at + 8, size));
	at += 8 + ((size + 7) & ~7UL);
	strings_size = *(const uint64_t *)at;
	strings = (const char *)at + 8;
	fact("strings-size", strings_size);
	fact("strings-sum", checksum(at + 8, strings_size));
	at += 8 + ((strings_size + 7) & ~7UL);
	fact("symbols-left", end + KERNEL_BASE - (uint64_t)at);
	for (uint64_t i = 0; i < size / sizeof(*symbols); i++) {
		if (equal(strings + symbols[i].name, "marker_function"))
			fact("marker", symbols[i].value);
	}
	fact("marker-here", (uint64_t)(void *)marker_function);
}

static void
report_environment(uint64_t begin)
{
	const char *at = (const char *)(begin + KERNEL_BASE);

	/* The kernel takes the first string as it is, even an empty one, and stops at an empty one behind another. */
	do {
		if (*at != '\0') {
			print("variable ");
			print(at);
			print("\n");
		}
		at += strlen(at) + 1;
	} while (*at != '\0');
	fact("environment-end", (uint64_t)at + 1 - KERNEL_BASE);
}

void
kernel_main(uint64_t modulep, uint64_t kernend)
{
	const uint8_t *at = (const uint8_t *)(modulep + KERNEL_BASE);
	uint64_t symbols = 0, symbols_end = 0, environment = 0, padding_dirty = 0;

	print("\n");
	fact("modulep", modulep);
	fact("kernend", kernend);
	report_cpu();
	report_tables();
	report_memory();
	for (int i = 0; i < RECORDS_MAX; i++) {
		uint32_t type = *(const uint32_t *)at;
		uint32_t length = *(const uint32_t *)(at + 4);

		if (type == 0 && length == 0) {
			fact("records-end", (uint64_t)at + 8 - KERNEL_BASE);
			fact("padding-dirty", padding_dirty);
			if (symbols != 0)
				report_symbols(symbols, symbols_end);
			report_environment(environment);
			print("done\n");
			leave(EXIT_DONE);
		}
		print("record ");
		print_hex(type);
		print(" ");
		for (uint32_t j = 0; j < length; j++) {
			uint8_t byte = at[8 + j];
			char digits[] = { "0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15], '\0' };

			print(digits);
		}
		print("\n");
		if (type == SYMBOLS_START)
			symbols = *(const uint64_t *)(at + 8);
		if (type == SYMBOLS_END)
			symbols_end = *(const uint64_t *)(at + 8);
		if (type == ENVIRONMENT)
			environment = *(const uint64_t *)(at + 8);
		for (uint32_t j = length; j % 8 != 0; j++)
			padding_dirty += at[8 + j] != 0;
		at += (8 + length + 7) & ~7UL;
	}
	print("lost\n");
	leave(EXIT_LOST);
}
