// SPDX-License-Identifier: BSD-2-Clause
/*
 * A plugin of QEMU's TCG that notes which instructions of chosen code are executed, and which way its conditional jumps
 * go, in a file that the harness maps as well (harness/machine/executed.py has its layout).
 *
 * Where the file has room for it, it is noted as well which words of the machine's memory are touched in one phase, and
 * whether one CPU touches any of them in the next: up to then it does not matter which of the two phases comes first.
 *
 * QEMU's header is not installed everywhere, and little of it is needed: what is used here has been the same since the
 * interface exists, but for what a translator is called with.  Instructions are told apart by the code in the file, not by what later interfaces do otherwise.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
#if PLUGIN_VERSION >= 7
typedef void (*translated)(struct qemu_plugin_tb *, void *data);
#else
typedef void (*translated)(plugin_id, struct qemu_plugin_tb *);
#endif
typedef void (*executed)(unsigned cpu, void *data);
enum { NO_REGISTERS };

#if PLUGIN_VERSION >= 7
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated, void *data);
#else
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated);
#endif
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, executed, int flags, void *data);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t index);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);

typedef uint32_t meminfo;
struct qemu_plugin_hwaddr;
typedef void (*touched)(unsigned cpu, meminfo, uint64_t address, void *data);
enum { LOADS_AND_STORES = 3 };
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, touched, int flags, int which, void *data);
extern unsigned qemu_plugin_mem_size_shift(meminfo);
extern bool qemu_plugin_mem_is_store(meminfo);
extern struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(meminfo, uint64_t address);
extern bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *);
extern uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *);

/*
 * Up to QEMU 7.2 a virtual CPU keeps what an instruction that touches memory by a helper has to call, and goes there when
 * it enters an interrupt, also if that is gone with the translated code: so it is made to forget it then.
 */
struct cpu;
#define WEAK __attribute__((weak))
extern WEAK struct cpu *qemu_get_cpu(int index);
extern WEAK void qemu_plugin_disable_mem_helpers(struct cpu *);
#if PLUGIN_VERSION < 2
extern void qemu_plugin_register_flush_cb(plugin_id, void (*)(plugin_id));
#endif

#define VISIBLE __attribute__((visibility("default")))
VISIBLE int qemu_plugin_version = PLUGIN_VERSION;

enum { EXECUTED = 1, FELL_THROUGH = 2, JUMPED = 4, PASSED = 8 };	/* the last: by set, 8 and 16 */
enum { SETS = 2, READ = 1, WRITTEN = 2, PER_SET = 2, PAGE = 4096 };
enum { NOTES = 1, COMPARES = 2 };	/* of a phase: by set */
enum { BEHIND = 1, MET = 2 };
enum { CPUS = 256 };
static const char MAGIC[] = "dflyexec";	/* the file has no NUL */

struct range {
	uint64_t start, size, notes, code;	/* the last two: where in the file */
};
struct header {
	char magic[8];
	uint64_t count;
	uint64_t watch;		/* where in the file; 0 for none */
	struct range ranges[];
};
struct watch {
	uint64_t phase;		/* what to do now, by set */
	uint64_t words, marks, used;	/* how many words of memory; where in the file: a byte each, a byte by PAGE of them */
	uint64_t from[SETS];	/* where in the file: the note of the instruction from which on they are compared */
	uint32_t cpus[SETS];	/* whose accesses are compared with a set, and not noted in it */
	uint32_t state[SETS];	/* 0 for not there yet, BEHIND it, or it has MET what the set has */
};

static struct header *file;
static struct watch *watch;
static uint8_t *base;

/* By virtual CPU: the conditional jump that it executed last, as long as it is not known where that led. */
static struct {
	uint8_t *note;
	uint64_t next, target;
} jumps[CPUS];

static inline void
mark(uint8_t *note, uint8_t what)
{
	/* Reading first keeps CPUs from taking the line from each other. */
	if ((__atomic_load_n(note, __ATOMIC_RELAXED) & what) != what)
		__atomic_fetch_or(note, what, __ATOMIC_RELAXED);
}

static struct range *
find(uint64_t address)
{
	uint64_t low = 0, high = file->count;

	while (low < high) {	/* they are sorted */
		uint64_t middle = (low + high) / 2;
		struct range *range = &file->ranges[middle];

		if (address < range->start)
			high = middle;
		else if (address - range->start >= range->size)
			low = middle + 1;
		else
			return (range);
	}
	return (NULL);
}

static void
plain(unsigned cpu, void *note)
{
	(void)cpu;
	mark(note, EXECUTED);
}

static const struct range *
range_of(const uint8_t *note, uint64_t *at)
{
	const struct range *range = file->ranges;

	*at = note - base;
	while (*at - range->notes >= range->size)
		range++;
	*at -= range->notes;
	return (range);
}

/* The first instruction of a block: what comes after a jump. */
static void
first(unsigned cpu, void *note)
{
	mark(note, EXECUTED);
	if (cpu < CPUS && jumps[cpu].note != NULL) {
		uint64_t at;
		const struct range *range = range_of(note, &at);

		if (range->start + at == jumps[cpu].next)
			mark(jumps[cpu].note, FELL_THROUGH);
		else if (range->start + at == jumps[cpu].target)
			mark(jumps[cpu].note, JUMPED);
		jumps[cpu].note = NULL;
	}
}

/* How far the conditional jump in CODE leads from its end; 0 for any other instruction. */
static int64_t
distance(const uint8_t *code, size_t size)
{
	if (size == 2 && code[0] >> 4 == 7)
		return ((int8_t)code[1]);
	if (size == 6 && code[0] == 0x0f && code[1] >> 4 == 8) {
		int32_t far;

		memcpy(&far, code + 2, sizeof(far));
		return (far);
	}
	return (0);
}

static void
jump(unsigned cpu, void *note)
{
	mark(note, EXECUTED);
	if (cpu < CPUS) {
		uint64_t at;
		const struct range *range = range_of(note, &at);
		const uint8_t *code = base + range->code + at;
		size_t size = code[0] == 0x0f ? 6 : 2;

		jumps[cpu].note = note;
		jumps[cpu].next = range->start + at + size;
		jumps[cpu].target = jumps[cpu].next + distance(code, size);
	}
}

/* A jump that is a block's first instruction. */
static void
first_and_jump(unsigned cpu, void *note)
{
	first(cpu, note);
	jump(cpu, note);
}

/* An instruction of a machine whose memory is watched: what a CPU passes before it touches what a set has. */
static void
watched(unsigned cpu, void *note)
{
	uint64_t phase = __atomic_load_n(&watch->phase, __ATOMIC_RELAXED);

	mark(note, EXECUTED);
	for (unsigned set = 0; phase != 0 && set < SETS; set++, phase >>= PER_SET) {
		if (!(phase & COMPARES) || watch->cpus[set] != cpu)
			continue;
		/* A CPU that stands serves an interrupt before it goes on. */
		if (watch->state[set] == 0 && base + watch->from[set] == (uint8_t *)note)
			watch->state[set] = BEHIND;
		if (watch->state[set] == BEHIND)
			mark(note, PASSED << set);
	}
}

static void
touch(unsigned cpu, uint64_t phase, uint64_t word, bool stored)
{
	uint8_t *at = base + watch->marks + word;

	for (unsigned set = 0; phase != 0 && set < SETS; set++, phase >>= PER_SET) {
		bool own = watch->cpus[set] == cpu;
		uint8_t seen = __atomic_load_n(at, __ATOMIC_RELAXED) >> PER_SET * set;

		if (own && (phase & COMPARES) && watch->state[set] == BEHIND && (seen & (stored ? READ | WRITTEN : WRITTEN)))
			watch->state[set] = MET;
		if (!own && (phase & NOTES)) {
			mark(at, (stored ? WRITTEN : READ) << PER_SET * set);
			mark(base + watch->used + word / PAGE, 1);
		}
	}
}

static void
on_access(unsigned cpu, meminfo how, uint64_t address, void *data)
{
	uint64_t phase = __atomic_load_n(&watch->phase, __ATOMIC_RELAXED), first, last;
	struct qemu_plugin_hwaddr *real;

	(void)data;
	if (phase == 0)
		return;
	real = qemu_plugin_get_hwaddr(how, address);
	if (real == NULL || qemu_plugin_hwaddr_is_io(real))
		return;
	first = qemu_plugin_hwaddr_phys_addr(real);
	last = first + (UINT64_C(1) << qemu_plugin_mem_size_shift(how)) - 1;
	for (uint64_t word = first / 8; word <= last / 8 && word < watch->words; word++)
		touch(cpu, phase, word, qemu_plugin_mem_is_store(how));
}

static void
translate(struct qemu_plugin_tb *block)
{
	size_t count = qemu_plugin_tb_n_insns(block);

	for (size_t number = 0; number < count; number++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, number);
		uint64_t address = qemu_plugin_insn_vaddr(insn);
		struct range *range = find(address);
		size_t size = qemu_plugin_insn_size(insn);
		bool jumps_off;

		if (watch != NULL)
			qemu_plugin_register_vcpu_mem_cb(insn, on_access, NO_REGISTERS, LOADS_AND_STORES, NULL);
		if (range == NULL)
			continue;
		address -= range->start;
		if (watch != NULL) {
			qemu_plugin_register_vcpu_insn_exec_cb(insn, watched, NO_REGISTERS, base + range->notes + address);
			continue;
		}
		jumps_off = address + size <= range->size &&
		    distance(base + range->code + address, size) != 0;
		qemu_plugin_register_vcpu_insn_exec_cb(insn,
		    number == 0 ? (jumps_off ? first_and_jump : first) : (jumps_off ? jump : plain),
		    NO_REGISTERS, base + range->notes + address);
	}
}

#if PLUGIN_VERSION < 2
static void
forget_helpers(plugin_id id)
{
	struct cpu *cpu;

	(void)id;
	for (int index = 0; index < CPUS && (cpu = qemu_get_cpu(index)) != NULL; index++)
		qemu_plugin_disable_mem_helpers(cpu);
}
#endif

#if PLUGIN_VERSION >= 7
static void
on_translation(struct qemu_plugin_tb *block, void *data)
{
	(void)data;
	translate(block);
}
#else
static void
on_translation(plugin_id id, struct qemu_plugin_tb *block)
{
	(void)id;
	translate(block);
}
#endif

VISIBLE int
qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv)
{
	struct stat about;
	int fd;

	(void)info;
	if (argc != 1 || strncmp(argv[0], "map=", 4) != 0)
		return (-1);
	fd = open(argv[0] + 4, O_RDWR);
	if (fd < 0 || fstat(fd, &about) != 0)
		return (-1);
	base = mmap(NULL, about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (base == MAP_FAILED)
		return (-1);
	file = (struct header *)base;
	if (memcmp(file->magic, MAGIC, sizeof(file->magic)) != 0)
		return (-1);
	if (file->watch != 0) {
		watch = (struct watch *)(base + file->watch);
#if PLUGIN_VERSION < 2
		if (qemu_get_cpu != NULL && qemu_plugin_disable_mem_helpers != NULL)
			qemu_plugin_register_flush_cb(id, forget_helpers);
#endif
	}
#if PLUGIN_VERSION >= 7
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation, NULL);
#else
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
#endif
	return (0);
}
