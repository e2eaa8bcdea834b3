/* The checked pages: every byte of them is known. */
#include "guest.h"

/* Table and root pages: entry i is the version of the i-th thing below. */
enum { ENTRIES = 1020, MAX_ROOTS = 1024 };

struct table {
	u64 hash;		/* of everything after it, and of the frame number */
	u32 version, zero;	/* version: what the page above says of this one */
	u32 entry[ENTRIES];
};

static u32 top[MAX_ROOTS];	/* versions of the root pages */

static inline u64 slot_gfn(u64 slot)
{
	u64 gfn = BOOT->first + slot;

	if (gfn >= BOOT->hole_first)
		gfn += BOOT->hole_count;
	return gfn;
}

static inline void *gfn_ptr(u64 gfn)
{
	return (void *)(gfn * PAGE_SIZE);
}

/*
 * Word 0 names frame and version, so that a report can say what was found instead. Of every 32
 * words ten are random and the others are one word that is the page's own: about 3:1 for any
 * compressor, and no two pages equal.
 */
enum { BLOCK = 32, RANDOM = 10 };

static inline u64 page_key(u64 gfn, u32 version)
{
	return mix(BOOT->seed + mix(gfn + ((u64)version << 40)));
}

static inline u64 page_word(u64 key, u64 i)
{
	u64 x = key + i * 0x9e3779b97f4a7c15ul;

	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ul;
	return x ^ (x >> 29);
}

static inline u64 page_head(u64 gfn, u32 version)
{
	return (u64)version << 40 | gfn;
}

static inline u64 expected_word(u64 gfn, u32 version, u64 key, u64 i)
{
	if (i == 0)
		return page_head(gfn, version);
	return i % BLOCK < RANDOM ? page_word(key, i) : key;
}

static void page_write(u64 gfn, u32 version)
{
	u64 key = page_key(gfn, version), *w = gfn_ptr(gfn);

	for (u64 b = 0; b < PAGE_WORDS; b += BLOCK) {
		for (u64 i = b; i < b + RANDOM; i++)
			w[i] = page_word(key, i);
		for (u64 i = b + RANDOM; i < b + BLOCK; i++)
			w[i] = key;
	}
	w[0] = page_head(gfn, version);
}

static void page_fail(u64 gfn, u32 version)
{
	u64 key = page_key(gfn, version), e, f;
	volatile u64 *w = gfn_ptr(gfn);

	for (u64 i = 0; i < PAGE_WORDS; i++) {
		e = expected_word(gfn, version, key, i);
		f = w[i];
		if (e != f)
			fail(gfn, (u32)i * 8, e, f, version);
	}
	/* It differed and now it does not: memory has changed, although nothing else runs. */
	fail(gfn, PAGE_SIZE, 0, 0, version);
}

static void page_verify(u64 gfn, u32 version)
{
	u64 key = page_key(gfn, version), diff;
	const u64 *w = gfn_ptr(gfn);

	diff = w[0] ^ page_head(gfn, version);
	for (u64 i = 1; i < RANDOM; i++)
		diff |= w[i] ^ page_word(key, i);
	for (u64 i = RANDOM; i < BLOCK; i++)
		diff |= w[i] ^ key;
	for (u64 b = BLOCK; b < PAGE_WORDS; b += BLOCK) {
		for (u64 i = b; i < b + RANDOM; i++)
			diff |= w[i] ^ page_word(key, i);
		for (u64 i = b + RANDOM; i < b + BLOCK; i++)
			diff |= w[i] ^ key;
	}
	if (diff)
		page_fail(gfn, version);
}

static u64 table_hash(const struct table *t)
{
	const u64 *w = (const u64 *)t;
	u64 a = BOOT->seed, b = (u64)t, c = 1, d = 2;

	for (u64 i = 1; i < PAGE_WORDS - 3; i += 4) {
		a = (a ^ w[i]) * 0x9e3779b97f4a7c15ul;
		b = (b ^ w[i + 1]) * 0x9e3779b97f4a7c15ul;
		c = (c ^ w[i + 2]) * 0x9e3779b97f4a7c15ul;
		d = (d ^ w[i + 3]) * 0x9e3779b97f4a7c15ul;
	}
	a = (a ^ w[PAGE_WORDS - 3]) * 0x9e3779b97f4a7c15ul;
	b = (b ^ w[PAGE_WORDS - 2]) * 0x9e3779b97f4a7c15ul;
	c = (c ^ w[PAGE_WORDS - 1]) * 0x9e3779b97f4a7c15ul;
	return mix(a) + mix(b + 1) * 3 + mix(c + 2) * 5 + mix(d + 3) * 7;
}

static struct table *table_verify(u64 slot, u32 version)
{
	u64 gfn = slot_gfn(slot), hash;
	struct table *t = gfn_ptr(gfn);

	hash = table_hash(t);
	if (t->hash != hash)
		fail(gfn, 0, hash, t->hash, version);
	if (t->version != version)
		fail(gfn, 8, version, t->version, version);
	return t;
}

static struct table *root_of(u64 table)
{
	return table_verify(table / ENTRIES, top[table / ENTRIES]);
}

static struct table *table_of(u64 page)
{
	u64 n = page / ENTRIES;

	return table_verify(BOOT->roots + n, root_of(n)->entry[n % ENTRIES]);
}

static inline u64 page_gfn(u64 page)
{
	return slot_gfn(BOOT->roots + BOOT->tables + page);
}

void page_check(u64 page)
{
	page_verify(page_gfn(page), table_of(page)->entry[page % ENTRIES]);
}

void page_update(u64 page)
{
	u64 n = page / ENTRIES, gfn = page_gfn(page);
	struct table *root, *t = table_of(page);
	u32 version = t->entry[page % ENTRIES];

	page_verify(gfn, version);
	/* 24 bits of a version fit beside the frame number; it never becomes 0 again. */
	version = (version & 0xffffff) == 0xffffff ? 1 : version + 1;
	page_write(gfn, version);
	t->entry[page % ENTRIES] = version;
	root = root_of(n);
	t->version = ++root->entry[n % ENTRIES];
	root->version = ++top[n / ENTRIES];
	t->hash = table_hash(t);
	root->hash = table_hash(root);
}

void page_touch(u64 page)
{
	if (below(100) < BOOT->write_percent)
		page_update(page);
	else
		page_check(page);
}

void pages_fill(void)
{
	struct table *t;

	if (BOOT->magic != BOOT_MAGIC || BOOT->roots > MAX_ROOTS)
		fail(7, 0, BOOT_MAGIC, BOOT->magic, 0);
	for (u64 n = 0; n < BOOT->roots + BOOT->tables; n++) {
		t = gfn_ptr(slot_gfn(n));
		t->version = 1;
		for (u64 i = 0; i < ENTRIES; i++)
			t->entry[i] = 1;
		t->hash = table_hash(t);
	}
	for (u64 n = 0; n < BOOT->roots; n++)
		top[n] = 1;
	for (u64 page = 0; page < BOOT->pages; page++)
		page_write(page_gfn(page), 1);
	out32(PORT_READY, 0);
}

u64 scatter(u64 rank)
{
	u64 cluster = BOOT->cluster, extents = BOOT->pages / cluster;

	return permute(rank / cluster, extents, BOOT->seed) * cluster + rank % cluster;
}
