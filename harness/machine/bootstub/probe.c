/*
 * Finds out whether an accelerator really runs guests: goes the way every guest goes (32-bit protected mode, CPUID, MSRs,
 * the time stamp counter, paging, 64-bit mode) and says so on COM1 and through isa-debug-exit.  See accel.py.
 */
#include "lib.h"

void stub_main(uint32_t magic, uint32_t info_address);
__attribute__((noreturn)) void enter_long_mode(uint32_t page_table, uint32_t stack, uint32_t entry_low,
    uint32_t entry_high);
extern char in_64_bits[];

enum { CODE_FAILED = 0x2d, STEPS = 1000 };

static uint64_t tables[3][512] __attribute__((aligned(4096)));
static uint8_t stack[4096] __attribute__((aligned(16)));

static void
demand(int condition, const char *what)
{
	if (condition)
		return;
	print("dfly-harness probe: no ");
	print(what);
	print("\r\n");
	leave(CODE_FAILED);
}

static uint64_t
time_stamp(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

void
stub_main(uint32_t magic, uint32_t info_address)
{
	uint32_t a = 0x80000000, b, c, d, efer_low, efer_high;
	uint64_t before;

	(void)magic;
	(void)info_address;
	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
	demand(a >= 0x80000001, "extended CPUID");
	a = 0x80000001;
	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
	demand(d >> 29 & 1, "64-bit mode");

	__asm__ volatile("rdmsr" : "=a"(efer_low), "=d"(efer_high) : "c"(0xc0000080));
	demand((efer_low & 0x500) == 0, "sane EFER before 64-bit mode");

	before = time_stamp();
	for (int i = 0; i < STEPS; i++)
		(void)port_read8(COM1_STATUS);	/* leaves the guest each time */
	demand(time_stamp() > before, "advancing time stamp counter");

	tables[0][0] = (uint32_t)(uintptr_t)tables[1] | 3;
	tables[1][0] = (uint32_t)(uintptr_t)tables[2] | 3;
	for (uint32_t i = 0; i < 512; i++)
		tables[2][i] = (i << 21) | 0x83;
	enter_long_mode((uint32_t)(uintptr_t)tables[0], (uint32_t)(uintptr_t)stack + sizeof(stack),
	    (uint32_t)(uintptr_t)in_64_bits, 0);
}
