/*
 * heap: transactions over a skewed heap, as many as it can.
 *
 * A transaction looks at three pages of the set and may change one. The set is spread over all of
 * memory. Page ranks follow the fourth power of a uniform number, so the density falls with
 * rank^(-3/4), much as by Zipf's law, and still no page of the set is left alone for long. Now and
 * then a transaction looks at a page outside of the set too.
 */
#include "guest.h"

static u64 skewed(u64 n)
{
	u64 u = rng() >> 32;

	u = u * u >> 32;
	u = u * u >> 32;
	return u * n >> 32;
}

int main(void)
{
	u64 set = BOOT->set, cold = BOOT->cold;

	pages_fill();
	progress_every(256);
	for (;;) {
		page_touch(scatter(skewed(set)));
		page_check(scatter(skewed(set)));
		page_check(scatter(skewed(set)));
		if (cold && below(cold) == 0)
			page_check(below(BOOT->pages));
		progress(1);
	}
}
