/*
 * What all guest programs share. They run in ring 3 with I/O privilege, in 64-bit mode, on identity
 * mapped 4 KiB pages, without interrupts, kernel or floating point. main() runs on each of the
 * program's vCPUs, with the vCPU's number.
 *
 * The memory that a program checks consists of numbered pages, 0 .. boot.pages-1. Page i has a
 * version, and its content is a function of (seed, frame number, version). Versions stand in table
 * pages, the versions of table pages in root pages, and those of root pages in the program's own
 * data. So an old page is detected like a wrong one, and so is an old table.
 */
#ifndef GUEST_H
#define GUEST_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

enum {
	PAGE_SIZE = 4096,
	PAGE_WORDS = PAGE_SIZE / 8,
};

/* Ports, all 32 bits wide. They match vmm/ports.go. */
enum {
	PORT_WORD = 0x500,	/* out: one word of a report */
	PORT_FAIL = 0x504,	/* out: the report is complete; its number of words */
	PORT_PROGRESS = 0x508,	/* out: units done since the last time */
	PORT_READY = 0x50c,	/* out: memory is filled, work begins */
	PORT_DONE = 0x510,	/* out: the program is finished */
	PORT_PACE = 0x514,	/* out: period in microseconds; in: wait, 1 = a period has begun,
				   0 = the wait was cut short, ask again */
	PORT_SYNC = 0x518,	/* out: the number of a point where a test may save the machine */
};

/* Filled in by the VMM, at BOOT_ADDR. vmm/guest/boot.go writes it; a test compares the two. */
struct boot {
	u64 magic;
	u64 seed;
	u64 first;		/* frame number of slot 0 */
	u64 hole_first;		/* frame numbers hole_first .. hole_first+hole_count-1 */
	u64 hole_count;		/* are no memory and are skipped */
	u64 roots;		/* slots: first the root pages, */
	u64 tables;		/* then the table pages, */
	u64 pages;		/* then the checked pages */
	u64 set;		/* pages of the working set */
	u64 limit;		/* units to do; 0: no end */
	u64 period_us;		/* of a frame or a tick */
	u64 write_percent;	/* accesses that change what they read */
	u64 cold;		/* one in so many transactions leaves the set; 0: none */
	u64 cluster;		/* neighbours that stay neighbours when the set is scattered */
};

#define BOOT_MAGIC 0x746f6f6277616874ul	/* "thawboot" */
#define BOOT ((const struct boot *)0x7000)

static inline void out32(u32 port, u32 value)
{
	__asm__ volatile("outl %0, %w1" : : "a"(value), "Nd"(port) : "memory");
}

static inline u32 in32(u32 port)
{
	u32 value;
	__asm__ volatile("inl %w1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline u64 mix(u64 x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ul;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ul;
	return x ^ (x >> 32);
}

/* progress.c */
void progress(u32 units);	/* counts; reports to the VMM; ends the program at the limit */
void progress_every(u32 units);	/* how many units between two reports, 1 if not called */
void next_period(void);		/* waits for the next period; pace() has set it */
void pace(u64 period_us);
void fail(u64 gfn, u32 offset, u64 expected, u64 found, u32 version);

/* rng.c */
u64 rng(void);
u64 below(u64 n);			/* uniform, 0 <= x < n */
u64 permute(u64 x, u64 n, u64 key);	/* a bijection of 0 .. n-1 */

/* pages.c */
void pages_fill(void);		/* version 1 of every page; then PORT_READY */
void page_check(u64 page);	/* reads and verifies all of it */
void page_update(u64 page);	/* verifies it, then writes its next version */
void page_touch(u64 page);	/* one or the other, by boot.write_percent */
u64 scatter(u64 rank);		/* the page that holds rank: the set is spread over memory */

#endif
