/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A kernel of a few hundred lines that finds out whether an accelerator runs guests, and how fast.  The boot stub starts
 * it as it starts a DragonFly kernel.  It looks at the time stamp counter, takes interrupts of two timers, and does
 * rounds of what a process costs that is forked, runs a small program and ends: system calls from ring 3, page faults,
 * copies of pages, changes of address space, port accesses.  Then it waits for a byte on COM1, so that it can be saved and
 * resumed, and looks whether everything is still there.  What it says on COM1 is for accel.py.
 */
#include "lib.h"

#define KERNEL_BASE	0xffffffff80000000UL
#define PHYSICAL(object)	((uint64_t)(object) - KERNEL_BASE)
#define WINDOW	0x40000000UL	/* where processes find memory only after a page fault */
#define FRAMES	(32UL << 20)	/* physical memory behind it, PAGES frames for each process */
#define APIC	0xfee00000UL
#define APIC_REGISTER(offset)	(*(volatile uint32_t *)(APIC + (offset)))

enum { CODE_DONE = 0x55, CODE_FAILED = 0x2d };
enum { CODE = 0x08, VECTOR_PAGE_FAULT = 14, VECTOR_PIT = 32, VECTOR_APIC = 48, VECTOR_SPURIOUS = 0xff };
enum { PRESENT = 1, WRITABLE = 2, USER = 4, UNCACHED = 0x10, LARGE = 0x80, ALL = PRESENT | WRITABLE | USER };
enum { EFER = 0xc0000080, STAR = 0xc0000081, LSTAR = 0xc0000082, SFMASK = 0xc0000084, EFER_SCE = 1, FLAG_IF = 0x200 };
enum { TICKS = 5, PATIENCE = 200 };

/* A round is about what PROCESSES processes cost. */
enum { ROUNDS = 100, PROCESSES = 2, CALLS = 1500, PAGES = 250, PORT_READS = 8 };

void probe_main(void);
void load_tables(const void *gdt_pointer, const void *idt_pointer);
void enter_user(void (*entry)(void), void *stack);
void count_system_call(void);
void page_fault(void);
void pit_tick(void);
void apic_tick(void);
void nothing(void);
__attribute__((noreturn)) void surprise(uint64_t vector, const uint64_t *stack);
extern char on_page_fault[], on_system_call[], on_pit[], on_apic[], on_nothing[], on_exceptions[];

static volatile uint32_t pit_ticks, apic_ticks, page_faults, system_calls;
static uint32_t present;	/* number of the process whose address space is in use */

#define TABLE	[512] __attribute__((aligned(4096)))
static uint64_t low_memory TABLE, apic_table TABLE, kernel_table TABLE;
static uint64_t tops[PROCESSES]TABLE, lows[PROCESSES]TABLE, windows[PROCESSES]TABLE, pages[PROCESSES]TABLE;
static uint8_t template[4096] __attribute__((aligned(4096)));
static uint8_t user_stack[4096] __attribute__((aligned(16))), interrupt_stack[4096] __attribute__((aligned(16)));

static uint32_t task[26];
static uint64_t segments[7] = {
	0,
	0x00af9a000000ffff,		/* 0x08: code */
	0x00cf92000000ffff,		/* 0x10: data */
	0x00cff2000000ffff,		/* 0x18: data of ring 3 */
	0x00affa000000ffff,		/* 0x20: code of ring 3 */
	0, 0,				/* 0x28: the task */
};
static uint64_t gates[256][2];

struct pointer {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

static void
say(const char *what)
{
	print("dfly-harness probe: ");
	print(what);
	print("\r\n");
}

static void
demand(int condition, const char *what)
{
	if (condition)
		return;
	say(what);
	leave(CODE_FAILED);
}

void
surprise(uint64_t vector, const uint64_t *stack)
{
	demand(stack[1] != (uint64_t)on_system_call && stack[0] != (uint64_t)on_system_call,
	    "a system call does not enter ring 0");
	print("dfly-harness probe: exception ");
	print_decimal((uint32_t)vector);
	print(", on the stack");
	for (int i = 0; i < 3; i++) {
		print(" ");
		print_hex(stack[i]);
	}
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

static uint64_t
read_msr(uint32_t number)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(number));
	return (uint64_t)high << 32 | low;
}

static void
write_msr(uint32_t number, uint64_t value)
{
	__asm__ volatile("wrmsr" : : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(number));
}

static void
check_clock(void)
{
	uint64_t before = time_stamp();

	for (int i = 0; i < 10; i++)
		(void)port_read8(COM1_STATUS);
	demand(time_stamp() > before, "the time stamp counter stands still");
}

static void
set_gate(uint32_t vector, const char *handler)
{
	uint64_t address = (uint64_t)handler;

	gates[vector][0] = (address >> 16 & 0xffff) << 48 | 0x8e00UL << 32 | CODE << 16 | (address & 0xffff);
	gates[vector][1] = address >> 32;
}

static void
set_tables(void)
{
	uint64_t base = (uint64_t)task, stack = (uint64_t)(interrupt_stack + sizeof(interrupt_stack));
	struct pointer gdt = { sizeof(segments) - 1, (uint64_t)segments };
	struct pointer idt = { sizeof(gates) - 1, (uint64_t)gates };

	memcpy(&task[1], &stack, sizeof(stack));
	task[25] = sizeof(task) << 16;		/* no I/O permissions */
	segments[5] = (base >> 24 & 0xff) << 56 | 0x0000890000000000 | (base & 0xffffff) << 16 | (sizeof(task) - 1);
	segments[6] = base >> 32;
	for (uint32_t vector = 0; vector < 256; vector++)
		set_gate(vector, vector < 32 ? on_exceptions + 16 * vector : on_nothing);
	set_gate(VECTOR_PAGE_FAULT, on_page_fault);
	set_gate(VECTOR_PIT, on_pit);
	set_gate(VECTOR_APIC, on_apic);
	load_tables(&gdt, &idt);
	write_msr(STAR, 0x13UL << 48 | (uint64_t)CODE << 32);
	write_msr(LSTAR, (uint64_t)on_system_call);
	write_msr(SFMASK, FLAG_IF);
	write_msr(EFER, read_msr(EFER) | EFER_SCE);
}

static void
switch_to(uint32_t process)
{
	present = process;
	__asm__ volatile("movq %0, %%cr3" : : "r"(PHYSICAL(tops[process])) : "memory");
}

/* 1 GB of memory at 0 and at KERNEL_BASE, the local APIC where it is, and a window for each process. */
static void
set_paging(void)
{
	for (uint64_t i = 0; i < 512; i++)
		low_memory[i] = i << 21 | LARGE | ALL;
	apic_table[(APIC & 0x3fffffff) >> 21] = (APIC & ~0x1fffffUL) | LARGE | UNCACHED | WRITABLE | PRESENT;
	kernel_table[510] = PHYSICAL(low_memory) | ALL;
	for (uint32_t process = 0; process < PROCESSES; process++) {
		tops[process][0] = PHYSICAL(lows[process]) | ALL;
		tops[process][511] = PHYSICAL(kernel_table) | ALL;
		lows[process][0] = PHYSICAL(low_memory) | ALL;
		lows[process][WINDOW >> 30] = PHYSICAL(windows[process]) | ALL;
		lows[process][APIC >> 30] = PHYSICAL(apic_table) | ALL;
		windows[process][0] = PHYSICAL(pages[process]) | ALL;
	}
	switch_to(0);
}

/* Both timers at 100 Hz: the 8254 by way of the interrupt controllers, and the local APIC's own. */
static void
start_timers(void)
{
	static const struct {
		uint16_t port;
		uint8_t value;
	} settings[] = {
		{ 0x20, 0x11 }, { 0xa0, 0x11 }, { 0x21, VECTOR_PIT }, { 0xa1, VECTOR_PIT + 8 }, { 0x21, 4 }, { 0xa1, 2 },
		{ 0x21, 1 }, { 0xa1, 1 }, { 0x21, 0xfe }, { 0xa1, 0xff },
		{ 0x43, 0x34 }, { 0x40, 11932 & 0xff }, { 0x40, 11932 >> 8 },
	};

	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		port_write8(settings[i].port, settings[i].value);
	APIC_REGISTER(0xf0) = 0x100 | VECTOR_SPURIOUS;
	APIC_REGISTER(0x350) = 0x700;			/* LINT0: the interrupt controllers */
	APIC_REGISTER(0x320) = 1 << 17 | VECTOR_APIC;	/* periodic */
	APIC_REGISTER(0x3e0) = 0xb;			/* the bus clock undivided */
	APIC_REGISTER(0x380) = 10000000;		/* of a bus of 1 GHz */
}

void
pit_tick(void)
{
	pit_ticks++;
	port_write8(0x20, 0x20);
}

void
apic_tick(void)
{
	apic_ticks++;
	APIC_REGISTER(0xb0) = 0;
}

void
nothing(void)
{
}

static void
await_interrupt(void)
{
	__asm__ volatile("sti; hlt; cli" : : : "memory");
}

/* Where both timers stand still, nothing wakes the CPU again: the other side has a deadline for that. */
static void
await_ticks(void)
{
	pit_ticks = apic_ticks = 0;
	while (pit_ticks < TICKS || apic_ticks < TICKS) {
		await_interrupt();
		demand(pit_ticks < PATIENCE, "no interrupts of the local APIC's timer");
		demand(apic_ticks < PATIENCE, "no interrupts of the 8254 timer");
	}
}

void
count_system_call(void)
{
	system_calls++;
}

void
page_fault(void)
{
	uint64_t address, page, frame;

	__asm__ volatile("movq %%cr2, %0" : "=r"(address));
	page = (address - WINDOW) >> 12;
	demand(page < PAGES, "a page fault nobody expected");
	page_faults++;
	frame = FRAMES + ((present * PAGES + page) << 12);
	memcpy((void *)frame, template, sizeof(template));
	pages[present][page] = frame | ALL;
}

static void
system_call(uint32_t number)
{
	__asm__ volatile("syscall" : "+a"(number) : : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory");
}

/* Runs in ring 3. */
static void
user_work(void)
{
	for (uint32_t i = 0; i < CALLS; i++)
		system_call(0);
	for (uint64_t page = 0; page < PAGES; page++)
		(*(volatile uint32_t *)(WINDOW + (page << 12)))++;
	system_call(1);
}

static void
work(void)
{
	for (uint32_t round = 0; round < ROUNDS; round++) {
		for (uint32_t process = 0; process < PROCESSES; process++) {
			memset(pages[process], 0, sizeof(pages[process]));
			switch_to(process);
			enter_user(user_work, user_stack + sizeof(user_stack) - 8);
			for (uint32_t i = 0; i < PORT_READS; i++)
				(void)port_read8(COM1_STATUS);
		}
		print(".");
	}
	print("\r\n");
}

/* Demands that everything the work did has been done, and that its memory is still what it was. */
static void
check_work(void)
{
	const uint32_t *first = (const uint32_t *)template;

	demand(system_calls == ROUNDS * PROCESSES * CALLS, "system calls got lost");
	demand(page_faults == ROUNDS * PROCESSES * PAGES, "page faults got lost");
	for (uint64_t page = 0; page < PROCESSES * PAGES; page++) {
		const uint32_t *frame = (const uint32_t *)(FRAMES + (page << 12));

		demand(frame[0] == first[0] + 1 && memcmp(frame + 1, first + 1, sizeof(template) - 4) == 0,
		    "memory is not what it was");
	}
}

static void
await_byte(void)
{
	while ((port_read8(COM1_STATUS) & 1) == 0)
		await_interrupt();
	(void)port_read8(COM1_DATA);
}

void
probe_main(void)
{
	print("\r\n");
	check_clock();
	for (uint32_t i = 0; i < sizeof(template); i++)
		template[i] = (uint8_t)(i * 7 + (i >> 8));
	set_paging();
	set_tables();
	start_timers();
	say("awaits timer interrupts");
	await_ticks();
	say("works");
	work();
	say("can be saved");
	await_byte();
	await_ticks();
	check_work();
	say("is done");
	leave(CODE_DONE);
}
