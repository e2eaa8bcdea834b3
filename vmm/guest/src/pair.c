/*
 * pair: two vCPUs that check each other's memory.
 *
 * Each owns every other page of the set. In a round both write the next version of their own pages,
 * meet, check all pages of the other one against the version that this round must have written, and
 * meet again. So neither can continue without the other, and each must see what the other writes. An
 * old or wrong page, or a vCPU that was restored with a wrong state, is found within a round.
 */
#include "guest.h"

enum { CPUS = 2 };

static volatile u64 arrived[CPUS];	/* meetings that a vCPU has reached */
static volatile u32 failing;

static u64 *page_of(u64 page)
{
	u64 gfn = BOOT->first + page;

	if (gfn >= BOOT->hole_first)
		gfn += BOOT->hole_count;
	return (u64 *)(gfn * PAGE_SIZE);
}

static u64 word_of(u64 page, u64 version, u64 i)
{
	return mix(BOOT->seed + mix(page + (version << 40))) + i * 0x9e3779b97f4a7c15ul;
}

static void write_page(u64 page, u64 version)
{
	u64 *w = page_of(page), word = word_of(page, version, 0);

	for (u64 i = 0; i < PAGE_WORDS; i++, word += 0x9e3779b97f4a7c15ul)
		w[i] = word;
}

static void check_page(u64 page, u64 version)
{
	volatile u64 *w = page_of(page);

	for (u64 i = 0; i < PAGE_WORDS; i++) {
		u64 found = w[i], expected = word_of(page, version, i);

		if (found == expected)
			continue;
		while (__atomic_exchange_n(&failing, 1, __ATOMIC_ACQUIRE))
			;		/* one report is enough */
		fail((u64)w / PAGE_SIZE, (u32)i * 8, expected, found, (u32)version);
	}
}

/* Waits until the other has reached as many meetings. */
static void meet(u64 self)
{
	u64 n = arrived[self] + 1;

	__atomic_store_n(&arrived[self], n, __ATOMIC_RELEASE);
	while (__atomic_load_n(&arrived[!self], __ATOMIC_ACQUIRE) < n)
		__asm__ volatile("pause");
}

int main(u64 self)
{
	u64 set = BOOT->set;

	for (u64 version = 1;; version++) {
		for (u64 page = self; page < set; page += CPUS)
			write_page(page, version);
		meet(self);
		for (u64 page = !self; page < set; page += CPUS)
			check_page(page, version);
		meet(self);
		if (self)
			continue;
		if (version == 1)
			out32(PORT_READY, 0);
		progress(1);
	}
}
