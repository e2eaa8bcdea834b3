package index

import (
	"fmt"
	"strings"

	"github.com/thawfs/thaw/index/pack"
)

// PagesError says which pages of an image could not be read. The same call has read all its other
// pages, and these are right.
type PagesError struct {
	Name string   // of the checkpoint
	GFNs []uint64 // ascending
	Err  error    // why the first of them could not
}

// namedPages is how many pages an error names.
const namedPages = 4

func (e *PagesError) Error() string {
	return fmt.Sprintf("%s: %s: %v", e.Name, pageNames(e.GFNs, uint64(len(e.GFNs))), e.Err)
}

func (e *PagesError) Unwrap() error { return e.Err }

// pageNames names the first of so many pages.
func pageNames(first []uint64, count uint64) string {
	var b strings.Builder
	if count == 1 {
		return fmt.Sprintf("page %d", first[0])
	}
	fmt.Fprintf(&b, "%d pages (", count)
	named := first[:min(len(first), namedPages)]
	for i, gfn := range named {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, gfn)
	}
	if count > uint64(len(named)) {
		b.WriteString(", ...")
	}
	return b.String() + ")"
}

// isDamage says whether an error means that stored bytes are damaged, missing, of the wrong kind, or on a
// bad sector. Such an error costs only the pages in these bytes.
func isDamage(err error) bool { return isCorrupt(err) || pack.IsDamage(err) }
