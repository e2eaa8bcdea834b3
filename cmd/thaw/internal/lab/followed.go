package lab

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/thawfs/thaw/wss"
)

// followed is what a server brought of a working set while the machine ran already, and what it had to read on
// demand.
type followed struct {
	TailPages uint64 `json:"tail_pages"`
	LazyPages uint64 `json:"lazy_pages"`
}

// readFollowed reads it from a stats.json.
func readFollowed(path string) (t followed, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(text, &t); err != nil {
		return t, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// add counts the pages of the tail as prefetched. The VMM took what was not there at the first instruction
// for pages that were fetched on demand; of those that the machine touched, as many came with the tail as
// the tail has and nobody asked for.
func (t followed) add(c wss.Counts) wss.Counts {
	inTime := min(t.TailPages, c.Lazy-min(t.LazyPages, c.Lazy))
	c.Prefetched += t.TailPages
	c.Skipped += inTime
	c.Lazy -= inTime
	return c
}
