/* idle: a machine with nothing to do. Ten times a second it looks after a few pages of its own. */
#include "guest.h"

enum { ROUND_TICKS = 10 };

int main(void)
{
	u64 set = BOOT->set, per_tick = (set + ROUND_TICKS - 1) / ROUND_TICKS, pos = 0;

	pages_fill();
	pace(BOOT->period_us);
	for (;;) {
		next_period();
		for (u64 i = 0; i < per_tick; i++) {
			page_touch(scatter(pos));
			pos = pos + 1 < set ? pos + 1 : 0;
		}
		progress(1);
	}
}
