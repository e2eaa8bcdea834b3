/* Random numbers and permutations. All are functions of the seed, so that a run can be repeated. */
#include "guest.h"

static u64 state;

u64 rng(void)
{
	state += 0x9e3779b97f4a7c15ul;
	return mix(state ^ BOOT->seed);
}

u64 below(u64 n)
{
	return (u64)(((unsigned __int128)rng() * n) >> 64);
}

/*
 * A Feistel network over the smallest even number of bits that holds n, walked until it comes back
 * below n. At most 4 n values are in the network, so the walk is short.
 */
u64 permute(u64 x, u64 n, u64 key)
{
	u32 half = 1;
	u64 mask, left, right, t;

	if (n < 2)
		return 0;
	while ((1ul << (2 * half)) < n)
		half++;
	mask = (1ul << half) - 1;
	do {
		left = x >> half;
		right = x & mask;
		for (u64 round = 0; round < 4; round++) {
			t = left ^ (mix(right + key + (round << 56)) & mask);
			left = right;
			right = t;
		}
		x = left << half | right;
	} while (x >= n);
	return x;
}
