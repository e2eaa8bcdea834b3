package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// SetWorkingSet gives a checkpoint a new working set: text becomes its working-set file as it is,
// set (first-touch order) its segment. Memory and ID stay as they are; images that are open keep
// the set they were opened with. Empty text and no runs remove the set.
func (s *Store) SetWorkingSet(ctx context.Context, name string, text []byte, set []Run) (
	Checkpoint, error,
) {
	return s.SetTimedWorkingSet(ctx, name, text, set, nil)
}

// SetTimedWorkingSet is SetWorkingSet with the times of the pages, which an image that is opened has then
// without reading the text.
func (s *Store) SetTimedWorkingSet(ctx context.Context, name string, text []byte, set []Run,
	wanted Wanted) (Checkpoint, error) {
	c, err := s.setWorkingSet(ctx, name, text, set, wanted)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("set working set of %s: %w", name, err)
	}
	return c, nil
}

func (s *Store) setWorkingSet(ctx context.Context, name string, text []byte, set []Run, wanted Wanted) (
	Checkpoint, error,
) {
	done, err := s.write(ctx)
	if err != nil {
		return Checkpoint{}, err
	}
	defer done()
	m, err := s.OpenImage(ctx, name)
	if err != nil {
		return Checkpoint{}, err
	}
	defer m.Close()
	if set, err = cleanRuns(set, m.Pages()); err != nil {
		return Checkpoint{}, err
	}
	return s.replaceWorkingSet(ctx, m, text, set, duesOf(set, segmentPages(set, m.Pages()), wanted))
}

// replaceWorkingSet gives the checkpoint of an image another working set, whose runs are clean, and whose
// parts are wanted as dues say. The writer's lock must be held.
func (s *Store) replaceWorkingSet(ctx context.Context, m *Image, text []byte, set []Run, dues []Due) (
	_ Checkpoint, err error,
) {
	old := m.root
	r, err := old.withoutWorkingSet()
	if err != nil {
		return Checkpoint{}, err
	}
	if err := r.setWorkingSetText(pack.NewHasher(s.key), text); err != nil {
		return Checkpoint{}, err
	}
	var seg *segment
	if len(set) > 0 {
		r.setRuns, r.dues = set, dues
		read, done := s.proved(ctx, m.entry.Name, m.pages, m.readPages)
		seg, err = s.writeSegment(ctx, set, m.Pages(), s.file.Profile, read, nil)
		done()
		if err != nil {
			return Checkpoint{}, err
		}
		seg.into(r)
		r.top.packs = append(r.top.packs, seg.number) // the highest number there is
		r.top.ids[seg.number] = seg.id
	}
	e, err := s.commit(ctx, r, m.entry)
	if err != nil {
		if seg != nil && !errors.Is(err, errUnsure) {
			if _, derr := s.packs.doom(context.WithoutCancel(ctx), seg.number); derr != nil {
				s.log.Warn("an unused segment cannot be removed now; thaw gc removes it", "pack", seg.number, "err", derr)
			}
		}
		return Checkpoint{}, err
	}
	if old := old.top.segment; old != 0 && !s.cat.mayList(old) {
		// It is removed at once, or when the last image that uses it is closed.
		if _, err := s.packs.doom(ctx, old); err != nil {
			s.log.Warn("an old segment cannot be removed now; thaw gc removes it", "pack", old, "err", err)
		}
	}
	return e.Checkpoint, nil
}

// withoutWorkingSet returns the next generation of a root, without text, runs and segment. It fails if
// another file has a damaged part in the root: what the root still has of it would be gone.
func (r *root) withoutWorkingSet() (*root, error) {
	next := &root{manifest: r.manifest, records: map[int][]byte{}}
	next.Generation++
	next.SetGeneration = nil
	next.WorkingSet, next.SegmentBytes = nil, 0
	next.Files = map[string]int64{}
	next.FileParts = map[string]fileParts{}
	// The parts that the root itself has move up.
	for _, name := range sortedKeys(r.FileParts) {
		if name == fileWorkingSet {
			continue
		}
		p := r.FileParts[name]
		p.Parts = slices.Clone(p.Parts)
		for i, ref := range p.Parts {
			if ref>>24 == rootNumber {
				n := len(next.records)
				part, err := r.ownPart(ref)
				if err != nil {
					return nil, fmt.Errorf("file %s: %w", name, err)
				}
				next.records[n] = part
				p.Parts[i] = uint64(pack.MakeRef(rootNumber, uint32(n)))
			}
		}
		next.FileParts[name] = p
		if size, ok := r.Files[name]; ok {
			next.Files[name] = size
		}
	}
	top := *r.top
	top.packs = slices.DeleteFunc(slices.Clone(top.packs), func(n uint64) bool {
		return n == top.segment
	})
	top.ids = maps.Clone(top.ids)
	delete(top.ids, top.segment)
	top.segment = 0
	next.top = &top
	return next, nil
}

// setWorkingSetText puts the file working-set into a root.
func (r *root) setWorkingSetText(h *pack.Hasher, text []byte) error {
	if len(text) == 0 {
		return nil
	}
	w := &fileWriter{root: r, hasher: h}
	return w.add(fileWorkingSet, bytes.NewReader(text), true)
}
