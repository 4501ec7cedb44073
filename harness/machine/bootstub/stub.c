/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Boots a DragonFly x86_64 kernel without a boot loader:
 *
 *	qemu-system-x86_64 -kernel STUB -initrd KERNEL -append 'howto=0x1000 name=value name="a value" ...'
 *
 * QEMU starts this program as a multiboot kernel and hands KERNEL over as its first module.  The stub does what loader(8)
 * does on a BIOS machine: it puts the segments, the symbol table, the kernel environment and the list of metadata
 * into physical memory from 2 MB on, enters 64-bit mode and jumps to the kernel.  The layout of what is handed over is
 * the kernel's (subr_module.c: preload_search_info(), machdep.c: hammer_time(), link_elf.c: parse_module_symbols()).
 *
 * When something is wrong one line starting with "dfly-harness stub: " goes to COM1 and the machine ends (see lib.h: leave()).
 */
#include "lib.h"

void stub_main(uint32_t magic, uint32_t info_address);
__attribute__((noreturn)) void enter_long_mode(uint32_t page_table, uint32_t stack, uint32_t entry_low,
    uint32_t entry_high);

/* Where the stub itself is: see bootstub.ld. */
extern char stub_begin[], stub_end[];

enum { FAILURE_CODE = 0x2d };	/* QEMU's exit status: 91 */

/* ---- multiboot 1 ---- */

enum {
	MULTIBOOT_MAGIC = 0x2badb002,
	MULTIBOOT_HAS_COMMAND_LINE = 1 << 2,
	MULTIBOOT_HAS_MODULES = 1 << 3,
	MULTIBOOT_HAS_MEMORY_MAP = 1 << 6,
	MEMORY_USABLE = 1,			/* type of a range in the memory map */
};

struct multiboot_info {
	uint32_t flags;
	uint32_t memory_lower, memory_upper;	/* KB */
	uint32_t boot_device;
	uint32_t command_line;
	uint32_t module_count, modules;
	uint32_t symbols[4];
	uint32_t map_length, map;
};

struct multiboot_module {
	uint32_t begin, end;
	uint32_t command_line;
	uint32_t reserved;
};

struct multiboot_range {
	uint32_t size;				/* of what follows */
	uint64_t base, length;
	uint32_t type;
} __attribute__((packed));

/* ---- ELF64 ---- */

enum { ELF_CLASS_64 = 2, ELF_LITTLE_ENDIAN = 1, ELF_TYPE_EXECUTABLE = 2, ELF_MACHINE_X86_64 = 62 };
enum { SEGMENT_LOAD = 1, SEGMENT_DYNAMIC = 2, SECTION_SYMBOLS = 2, SECTION_STRINGS = 3 };

struct elf_header {
	uint8_t ident[16];
	uint16_t type, machine;
	uint32_t version;
	uint64_t entry, segments, sections;
	uint32_t flags;
	uint16_t header_size, segment_size, segment_count, section_size, section_count, names;
};

struct elf_segment {
	uint32_t type, flags;
	uint64_t offset, virtual_address, physical_address, file_size, memory_size, alignment;
};

struct elf_section {
	uint32_t name, type;
	uint64_t flags, address, offset, size;
	uint32_t link, info;
	uint64_t alignment, entry_size;
};

/* ---- the DragonFly kernel ---- */

#define KERNEL_BASE 0xffffffff80000000ULL	/* vmparam.h: KERNBASE, where physical address 0 appears */

enum {
	PAGE = 4096,
	LOWEST_LOAD = 0x100000,			/* below are the BIOS, its tables and our page tables */

	/* linker.h: MODINFO_*, MODINFOMD_*; metadata.h: MODINFOMD_SMAP */
	MD_END = 0,
	MD_NAME = 1,
	MD_TYPE = 2,
	MD_ADDRESS = 3,
	MD_SIZE = 4,
	MD_ELF_HEADER = 0x8002,
	MD_SYMBOLS_START = 0x8003,
	MD_SYMBOLS_END = 0x8004,
	MD_DYNAMIC = 0x8005,
	MD_ENVIRONMENT = 0x8006,
	MD_HOWTO = 0x8007,
	MD_KERNEL_END = 0x8008,
	MD_MEMORY_MAP = 0x9001,
};

struct bios_range {				/* bios.h: struct bios_smap */
	uint64_t base, length;
	uint32_t type;
} __attribute__((packed));

/*
 * Pages below 1 MB that stay in use until the kernel has made page tables of its own.  They cannot be part of the stub,
 * nor lie behind the kernel: it takes the memory behind itself before it leaves our page tables (pmap.c: allocpages()).
 * QEMU keeps the multiboot information at 0x9000 and above.
 */
enum { TABLE_LEVEL4 = 0x1000, TABLE_LEVEL3 = 0x2000, TABLE_LEVEL2 = 0x3000, STACK_TOP = 0x5000 };

/* The kernel file as QEMU put it into memory. */
struct file {
	const uint8_t *begin;
	uint32_t size;
};

static __attribute__((noreturn)) void
fail(const char *reason)
{
	print("dfly-harness stub: ");
	print(reason);
	print("\r\n");
	leave(FAILURE_CODE);
}

static uint32_t
round_up(uint32_t number, uint32_t to)
{
	return (number + to - 1) & ~(to - 1);
}

/* A piece of the file, or the end of the boot if the file is too short for it. */
static const void *
piece(const struct file *file, uint64_t offset, uint64_t length)
{
	if (offset > file->size || length > file->size - offset)
		fail("the kernel file is truncated");
	return file->begin + offset;
}

/* Claims LENGTH bytes of physical memory at *END, aligned to ALIGNMENT, and moves *END behind them. */
static uint32_t
claim(uint32_t *end, uint64_t length, uint32_t alignment)
{
	uint32_t begin = round_up(*end, alignment);
	uint32_t limit = (uint32_t)(uintptr_t)stub_begin;

	if (begin > limit || length > limit - begin)
		fail("the kernel with its symbols and environment does not fit below 96 MB");
	*end = begin + (uint32_t)length;
	return begin;
}

static void *
pointer(uint32_t address)
{
	return (void *)(uintptr_t)address;
}

static const struct elf_header *
check_header(const struct file *file)
{
	const struct elf_header *header = piece(file, 0, sizeof(*header));

	if (memcmp(header->ident, "\177ELF", 4) != 0)
		fail("the module is not an ELF file");
	if (header->ident[4] != ELF_CLASS_64 || header->ident[5] != ELF_LITTLE_ENDIAN ||
	    header->machine != ELF_MACHINE_X86_64)
		fail("the module is an ELF file, but not for x86_64");
	if (header->type != ELF_TYPE_EXECUTABLE || header->entry < KERNEL_BASE)
		fail("the module is an ELF file, but not a kernel");
	if (header->segment_size != sizeof(struct elf_segment) ||
	    (header->section_count != 0 && header->section_size != sizeof(struct elf_section)))
		fail("the kernel's ELF tables have an unknown entry size");
	return header;
}

/* What loading the segments told about the kernel; physical addresses. */
struct image {
	uint32_t begin, end;
	uint64_t dynamic;			/* virtual; 0 if there is no dynamic section */
};

static struct image
load_segments(const struct file *file, const struct elf_header *header)
{
	const struct elf_segment *segments =
	    piece(file, header->segments, (uint64_t)header->segment_count * sizeof(*segments));
	struct image image = { UINT32_MAX, 0, 0 };

	for (int i = 0; i < header->segment_count; i++) {
		const struct elf_segment *segment = &segments[i];
		uint64_t physical = segment->virtual_address - KERNEL_BASE;
		uint32_t end;

		if (segment->type == SEGMENT_DYNAMIC)
			image.dynamic = segment->virtual_address;
		if (segment->type != SEGMENT_LOAD || segment->memory_size == 0)
			continue;
		if (segment->virtual_address < KERNEL_BASE + LOWEST_LOAD || physical > UINT32_MAX)
			fail("a segment of the kernel is not linked behind KERNBASE + 1 MB");
		if (segment->file_size > segment->memory_size)
			fail("a segment of the kernel is longer in the file than in memory");
		end = (uint32_t)physical;
		(void)claim(&end, segment->memory_size, 1);
		memcpy(pointer((uint32_t)physical), piece(file, segment->offset, segment->file_size),
		    (size_t)segment->file_size);
		memset(pointer((uint32_t)(physical + segment->file_size)), 0,
		    (size_t)(segment->memory_size - segment->file_size));
		if ((uint32_t)physical < image.begin)
			image.begin = (uint32_t)physical;
		if (end > image.end)
			image.end = end;
	}
	if (image.end == 0)
		fail("the kernel has no segment to load");
	if (header->entry - KERNEL_BASE < image.begin || header->entry - KERNEL_BASE >= image.end)
		fail("the kernel's entry point is outside of its segments");
	return image;
}

/* Appends one table, preceded by its size as 64 bits and padded to 64 bits. */
static void
load_table(const struct file *file, const struct elf_section *section, uint32_t *end)
{
	const void *content = piece(file, section->offset, section->size);
	uint64_t size = section->size;
	uint32_t at = claim(end, sizeof(size) + size, 8);

	memcpy(pointer(at), &size, sizeof(size));
	memcpy(pointer(at + sizeof(size)), content, (size_t)size);
	at = *end;
	(void)claim(end, 0, 8);
	memset(pointer(at), 0, *end - at);
}

/* Puts the symbol and string tables behind the image, for DDB; returns where they begin, or 0 if the file is stripped. */
static uint32_t
load_symbols(const struct file *file, const struct elf_header *header, uint32_t *end)
{
	const struct elf_section *sections =
	    piece(file, header->sections, (uint64_t)header->section_count * sizeof(*sections));
	uint32_t begin;

	for (int i = 0; i < header->section_count; i++) {
		const struct elf_section *symbols = &sections[i];

		if (symbols->type != SECTION_SYMBOLS || symbols->size == 0)
			continue;
		if (symbols->link >= header->section_count || sections[symbols->link].type != SECTION_STRINGS)
			fail("the kernel's symbol table has no string table");
		begin = claim(end, 0, 8);
		load_table(file, symbols, end);
		load_table(file, &sections[symbols->link], end);
		return begin;
	}
	return 0;
}

/* ---- the command line ---- */

/* Whether TEXT starts with PREFIX. */
static int
starts_with(const char *text, const char *prefix)
{
	return memcmp(text, prefix, strlen(prefix)) == 0;
}

/* QEMU puts the path of the stub in front of the command line; what is ours begins at "howto=". */
static const char *
find_options(const char *line)
{
	for (; *line != '\0'; line++) {
		if (line[0] == ' ' && starts_with(line + 1, "howto="))
			return line + 1;
	}
	fail("the command line has no howto=");
}

static uint32_t
parse_number(const char **cursor)
{
	const char *at = *cursor;
	uint32_t number = 0;
	uint32_t base = 10;

	if (starts_with(at, "0x")) {
		base = 16;
		at += 2;
	}
	if (*at == '\0' || *at == ' ')
		fail("howto= wants a number");
	for (; *at != '\0' && *at != ' '; at++) {
		uint32_t digit = *at >= '0' && *at <= '9' ? (uint32_t)(*at - '0') :
		    *at >= 'a' && *at <= 'f' ? (uint32_t)(*at - 'a') + 10 :
		    *at >= 'A' && *at <= 'F' ? (uint32_t)(*at - 'A') + 10 : 16;

		if (digit >= base || number > (UINT32_MAX - digit) / base)
			fail("howto= wants a number of 32 bits");
		number = number * base + digit;
	}
	*cursor = at;
	return number;
}

/*
 * Turns the rest of the command line into the kernel's format, "name=value" strings with an empty one at the end, at *END.
 * A value may be quoted; in quotes a backslash takes the next character as it is.  Returns where it begins.
 */
static uint32_t
load_environment(const char *line, uint32_t *end, uint32_t *count)
{
	/* Each variable loses at least the space in front of it, so the result is never longer than this. */
	uint32_t begin = claim(end, strlen(line) + 3, PAGE);
	char *out = pointer(begin);

	*count = 0;
	for (;;) {
		const char *name;

		while (*line == ' ')
			line++;
		if (*line == '\0')
			break;
		for (name = line; *line != '=' && *line != ' ' && *line != '\0'; line++)
			*out++ = *line;
		if (*line != '=' || line == name)
			fail("the command line has a word that is not name=value");
		*out++ = *line++;
		if (*line == '"') {
			for (line++; *line != '"'; line++) {
				if (*line == '\\')
					line++;
				if (*line == '\0')
					fail("the command line has a quote that is not closed");
				*out++ = *line;
			}
			line++;
			if (*line != ' ' && *line != '\0')
				fail("the command line goes on right behind a closing quote");
		} else {
			while (*line != ' ' && *line != '\0')
				*out++ = *line++;
		}
		*out++ = '\0';
		++*count;
	}
	if (*count == 0)
		*out++ = '\0';			/* kern_environment.c: kernenv_next() looks behind the first one */
	*out++ = '\0';
	*end = (uint32_t)(uintptr_t)out;
	return begin;
}

/* ---- metadata ---- */

/* Appends one record: 32 bits of type, 32 bits of length, the data, padding to 64 bits. */
static void *
add_record(uint32_t *end, uint32_t type, const void *data, uint32_t length)
{
	uint32_t padded = round_up(length, 8);
	uint32_t at = claim(end, 8 + padded, 8);

	memcpy(pointer(at), &type, 4);
	memcpy(pointer(at + 4), &length, 4);
	memset(pointer(at + 8), 0, padded);
	if (data != NULL)
		memcpy(pointer(at + 8), data, length);
	return pointer(at + 8);
}

static void *
add_number(uint32_t *end, uint32_t type, uint64_t number)
{
	return add_record(end, type, &number, sizeof(number));
}

static void
add_string(uint32_t *end, uint32_t type, const char *text)
{
	(void)add_record(end, type, text, (uint32_t)strlen(text) + 1);
}

static const struct multiboot_range *
next_range(const struct multiboot_range *range)
{
	return pointer((uint32_t)(uintptr_t)range + range->size + (uint32_t)sizeof(range->size));
}

/* QEMU lets the part of a file that is beyond the machine's memory fall on the floor without a word. */
static void
check_memory(const struct multiboot_info *info, const struct file *file)
{
	const struct multiboot_range *limit = pointer(info->map + info->map_length);
	uint32_t begin = (uint32_t)(uintptr_t)file->begin;

	for (const struct multiboot_range *range = pointer(info->map); range < limit; range = next_range(range)) {
		if (range->type == MEMORY_USABLE && range->base <= begin &&
		    range->base + range->length >= (uint64_t)begin + file->size)
			return;
	}
	fail("the kernel file is larger than the machine's memory; give QEMU more -m");
}

/* The BIOS's memory map, which the kernel cannot ask for itself. */
static void
add_memory_map(uint32_t *end, const struct multiboot_info *info)
{
	const struct multiboot_range *first = pointer(info->map);
	const struct multiboot_range *limit = pointer(info->map + info->map_length);
	struct bios_range *out;
	uint32_t count = 0;

	for (const struct multiboot_range *range = first; range < limit; range = next_range(range))
		count++;
	out = add_record(end, MD_MEMORY_MAP, NULL, count * (uint32_t)sizeof(*out));
	for (const struct multiboot_range *range = first; range < limit; range = next_range(range), out++) {
		out->base = range->base;
		out->length = range->length;
		out->type = range->type;
	}
}

/* ---- 64-bit mode ---- */

static void
check_cpu(void)
{
	uint32_t a, b, c, d;

	a = 0x80000000;
	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
	if (a >= 0x80000001) {
		a = 0x80000001;
		__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
		if (d & (1U << 29))
			return;
	}
	fail("this CPU has no 64-bit mode; give QEMU another -cpu");
}

/* The first GB of physical memory, in 2 MB pages, at address 0 and at KERNEL_BASE. */
static void
make_page_tables(void)
{
	enum { PRESENT = 1, WRITABLE = 2, LARGE = 0x80 };
	uint64_t *level4 = pointer(TABLE_LEVEL4);
	uint64_t *level3 = pointer(TABLE_LEVEL3);
	uint64_t *level2 = pointer(TABLE_LEVEL2);

	memset(level4, 0, PAGE);
	memset(level3, 0, PAGE);
	level4[0] = level4[KERNEL_BASE >> 39 & 511] = TABLE_LEVEL3 | PRESENT | WRITABLE;
	level3[0] = level3[KERNEL_BASE >> 30 & 511] = TABLE_LEVEL2 | PRESENT | WRITABLE;
	for (uint32_t i = 0; i < 512; i++)
		level2[i] = (i << 21) | PRESENT | WRITABLE | LARGE;
}

void
stub_main(uint32_t magic, uint32_t info_address)
{
	const struct multiboot_info *info = pointer(info_address);
	const uint32_t needed = MULTIBOOT_HAS_COMMAND_LINE | MULTIBOOT_HAS_MODULES | MULTIBOOT_HAS_MEMORY_MAP;
	const struct multiboot_module *module;
	const struct elf_header *header;
	const char *options;
	struct file file;
	struct image image;
	uint32_t end, symbols, symbols_end, environment, variables, metadata, howto, *stack;
	uint64_t *kernel_end;

	if (magic != MULTIBOOT_MAGIC)
		fail("not started by a multiboot loader");
	if ((info->flags & needed) != needed || info->module_count == 0)
		fail("QEMU must be given -initrd KERNEL and -append 'howto=...'");
	check_cpu();

	module = pointer(info->modules);
	if (module->end < module->begin || module->begin < (uint32_t)(uintptr_t)stub_end)
		fail("the kernel file is in the way of its own segments");
	file.begin = pointer(module->begin);
	file.size = module->end - module->begin;
	check_memory(info, &file);
	options = find_options(pointer(info->command_line));
	options += strlen("howto=");
	howto = parse_number(&options);

	header = check_header(&file);
	image = load_segments(&file, header);
	end = image.end;
	symbols = load_symbols(&file, header, &end);
	symbols_end = end;
	environment = load_environment(options, &end, &variables);

	metadata = claim(&end, 0, PAGE);
	add_string(&end, MD_NAME, "kernel");
	add_string(&end, MD_TYPE, "elf kernel");
	(void)add_number(&end, MD_ADDRESS, image.begin);
	(void)add_number(&end, MD_SIZE, symbols_end - image.begin);
	if (symbols != 0) {
		(void)add_number(&end, MD_SYMBOLS_START, symbols);
		(void)add_number(&end, MD_SYMBOLS_END, symbols_end);
	}
	if (image.dynamic != 0)
		(void)add_number(&end, MD_DYNAMIC, image.dynamic);
	(void)add_record(&end, MD_ELF_HEADER, header, sizeof(*header));
	(void)add_record(&end, MD_HOWTO, &howto, sizeof(howto));
	(void)add_number(&end, MD_ENVIRONMENT, environment);
	kernel_end = add_number(&end, MD_KERNEL_END, 0);
	add_memory_map(&end, info);
	(void)add_record(&end, MD_END, NULL, 0);
	end = claim(&end, 0, PAGE);
	*kernel_end = end;

	print("dfly-harness stub: kernel of ");
	print_decimal((end - image.begin) >> 10);
	print(symbols != 0 ? " KB with symbols, " : " KB without symbols, ");
	print_decimal(variables);
	print(" variables, entry ");
	print_hex(header->entry);
	print("\r\n");

	/* locore.s: btext finds its two arguments, of 32 bits each, above the room for a return address that nobody uses. */
	make_page_tables();
	stack = pointer(STACK_TOP - 16);
	stack[1] = metadata;
	stack[2] = end;
	enter_long_mode(TABLE_LEVEL4, STACK_TOP - 16, (uint32_t)header->entry, (uint32_t)(header->entry >> 32));
}
