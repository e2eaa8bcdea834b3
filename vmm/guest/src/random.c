/*
 * random:PCT: looks at PCT % of memory at random. The pages are chosen once by the seed; every round
 * visits each of them once, in an order of its own.
 */
#include "guest.h"

int main(void)
{
	u64 set = BOOT->set;

	pages_fill();
	progress_every(64);
	for (u64 round = 0;; round++) {
		for (u64 i = 0; i < set; i++) {
			page_touch(scatter(permute(i, set, mix(BOOT->seed + round))));
			progress(1);
		}
	}
}
