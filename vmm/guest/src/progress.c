/* Reports to the VMM. */
#include "guest.h"

static u64 done;	/* units since the first start */
static u32 pending;	/* units not reported yet */
static u32 every = 1;

void progress_every(u32 units)
{
	every = units;
}

void progress(u32 units)
{
	u64 limit = BOOT->limit;

	pending += units;
	done += units;
	if (pending < every && (!limit || done < limit))
		return;
	out32(PORT_PROGRESS, pending);
	pending = 0;
	while (limit && done >= limit)
		out32(PORT_DONE, 0);
}

void pace(u64 period_us)
{
	out32(PORT_PACE, (u32)period_us);
}

void next_period(void)
{
	while (!in32(PORT_PACE))
		;
}

static void word64(u64 w)
{
	out32(PORT_WORD, (u32)w);
	out32(PORT_WORD, (u32)(w >> 32));
}

void fail(u64 gfn, u32 offset, u64 expected, u64 found, u32 version)
{
	word64(gfn);
	word64(offset);
	word64(expected);
	word64(found);
	word64(version);
	for (;;)
		out32(PORT_FAIL, 5);
}
