package state

import (
	"encoding/binary"
	"path/filepath"
	"strings"

	"github.com/thawfs/thaw/vmm/ram"
)

// A differential checkpoint contains the pages that changed since its parent: the checkpoint that the
// machine's memory was mapped from. Its memory file has the size of the image, with those pages at
// their offsets. The rest of the file has no meaning. Section CHANGED of the state file lists the
// pages. The holes of the memory file do not: a copy may fill them, and a page that became zero is a
// hole, too.
//
//	CHANGED, required; integers are little-endian
//	  0  size        u64, bytes of the image
//	  8  parent id   32 bytes: SHA-256 over the parent's sections, without this one (checkpoint.go)
//	 40  length      u16, of the parent's path
//	 42  parent      its absolute path when this was written
//	     runs        up to the end: a pair of varints each, pages since the end of the run before,
//	                 and pages in the run

// Changed is the contents of a section CHANGED.
type Changed struct {
	Size     uint64
	ParentID ID
	Parent   string
	Runs     []ram.PageRun // ascending, not adjacent
}

// changedHead is the fixed part at the start of the section.
type changedHead struct {
	Size       uint64
	ParentID   ID
	ParentSize uint16
}

// section encodes it.
func (c *Changed) section() (section, error) {
	if len(c.Parent) > 1<<16-1 {
		return section{}, badState("the path of the parent has %d bytes", len(c.Parent))
	}
	b, err := binary.Append(nil, binary.LittleEndian,
		changedHead{c.Size, c.ParentID, uint16(len(c.Parent))})
	if err != nil {
		return section{}, err
	}
	b = append(b, c.Parent...)
	at := uint64(0)
	for _, r := range c.Runs {
		b = binary.AppendUvarint(b, r.First-at)
		b = binary.AppendUvarint(b, r.Count)
		at = r.End()
	}
	return section{tag: tagChanged, required: true, data: b}, nil
}

// splitChanged separates the section from the others of a state. c is nil if there is none: the
// checkpoint has all of its memory.
func splitChanged(sections []section) (c *Changed, others []section, err error) {
	for _, s := range sections {
		switch {
		case s.tag != tagChanged:
			others = append(others, s)
		case s.index != 0 || c != nil:
			return nil, nil, badState("more than one section %s", tagChanged)
		default:
			if c, err = decodeChanged(s.data); err != nil {
				return nil, nil, err
			}
		}
	}
	return c, others, nil
}

func decodeChanged(b []byte) (*Changed, error) {
	var head changedHead
	n, err := binary.Decode(b, binary.LittleEndian, &head)
	if err != nil || int(head.ParentSize) > len(b)-n {
		return nil, badState("section %s of %d bytes is truncated", tagChanged, len(b))
	}
	b = b[n:]
	c := &Changed{Size: head.Size, ParentID: head.ParentID, Parent: string(b[:head.ParentSize])}
	b = b[head.ParentSize:]
	if !filepath.IsAbs(c.Parent) || strings.ContainsRune(c.Parent, 0) {
		return nil, badState("section %s: %q is not an absolute path of a parent", tagChanged, c.Parent)
	}
	if c.Size == 0 || c.Size%pageSize != 0 || c.Size > ram.MaxImage {
		return nil, badState("section %s: an image of %d bytes", tagChanged, c.Size)
	}
	return c, c.decodeRuns(b)
}

func (c *Changed) decodeRuns(b []byte) error {
	at, pages := uint64(0), c.Size/pageSize
	for len(b) > 0 {
		gap, n := binary.Uvarint(b)
		if n <= 0 {
			return badState("section %s: a run is cut off", tagChanged)
		}
		count, m := binary.Uvarint(b[n:])
		if m <= 0 {
			return badState("section %s: a run is cut off", tagChanged)
		}
		b = b[n+m:]
		if count == 0 || gap == 0 && at > 0 || gap > pages-at || count > pages-at-gap {
			return badState("section %s: a run of %d pages, %d after page %d of %d", tagChanged, count,
				gap, at, pages)
		}
		c.Runs = append(c.Runs, ram.PageRun{First: at + gap, Count: count})
		at += gap + count
	}
	return nil
}

// MaxRuns is the most runs of a section CHANGED: as many as always fit, even with the largest numbers.
const MaxRuns = (maxSectionSize - 1<<17) / (2 * 6)
