/*
 * stream: a player, 30 frames a second.
 *
 * Memory is a file in the page cache; the player goes round and round in one part of it, which it
 * reads once in 240 frames (8 s), and writes each frame into one of three frame buffers.
 */
#include "guest.h"

enum { LOOP_FRAMES = 240, BUFFERS = 3, BUFFER_PAGES = 64 };

int main(void)
{
	u64 buffers = BUFFERS * BUFFER_PAGES, set = BOOT->set - buffers, pos = 0, frame;
	u64 per_frame = (set + LOOP_FRAMES - 1) / LOOP_FRAMES;

	pages_fill();
	pace(BOOT->period_us);
	for (frame = 0;; frame++) {
		next_period();
		for (u64 i = 0; i < per_frame; i++) {
			page_check(scatter(pos));
			pos = pos + 1 < set ? pos + 1 : 0;
		}
		for (u64 i = 0; i < BUFFER_PAGES; i++)
			page_update(scatter(set + frame % BUFFERS * BUFFER_PAGES + i));
		progress(1);
	}
}
