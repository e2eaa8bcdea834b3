package importer

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/guestmem"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss/pagetable"
)

// OpenStream finds out what a stream has, by its first bytes; with raw, or if they are those of no format,
// it is memory byte for byte.
func OpenStream(name string, r io.Reader, raw bool) (*Source, error) {
	saved, err := guestmem.OpenStream(name, r, raw)
	if err != nil {
		return nil, foreignError(err)
	}
	return foreign(saved)
}

// foreign is the source of what another program wrote.
func foreign(saved *guestmem.Saved) (*Source, error) {
	s := &Source{files: []io.Closer{saved}, saved: saved, Saw: saved.Saw, Reading: saved.Reading,
		Note: saved.Warning}
	s.Memory, s.Files = saved.Path, maps.Clone(saved.Files)
	if s.Files == nil {
		s.Files = map[string]string{}
	}
	switch {
	case saved.IsDiff(): // complete does the rest
	case saved.Memory == nil:
		s.Stream = stream{s}
	default:
		if err := s.setImage(); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// setImage takes the memory of what another program wrote.
func (src *Source) setImage() (err error) {
	src.Image = foreignMemory{src.saved.Memory}
	src.Info, err = foreignInfo(src.saved, src.saved.Memory.Size(), src.saved.Regions, src.saved.Facts)
	return err
}

// with is facts and others.
func with(facts, more guestmem.Facts) guestmem.Facts {
	all := guestmem.Facts{}
	maps.Copy(all, facts)
	maps.Copy(all, more)
	return all
}

// regionsOf are the regions in the info.json of a checkpoint.
func regionsOf(c index.Checkpoint) (list []guestmem.Region) {
	info, err := pagetable.ParseInfo(c.Guest)
	if err != nil {
		return nil
	}
	for _, r := range info.Regions {
		list = append(list, guestmem.Region(r))
	}
	return list
}

// foreignError says what to do about a format that is not imported.
func foreignError(err error) error {
	e, ok := errors.AsType[*guestmem.FormatError](err)
	switch {
	case errors.Is(err, context.Canceled):
		return err // which is no fault of the file
	case !ok:
		return explain(err)
	}
	hint := e.Do
	if hint == "" {
		hint = "it is damaged, or was not written to its end: save the machine again"
	}
	return exitcode.WithHint(exitcode.NotImage, err, hint+"; --raw imports the file byte for byte as it is")
}

// foreignInfo is the info.json of what another program wrote.
func foreignInfo(saved *guestmem.Saved, size int64, regions []guestmem.Region, facts guestmem.Facts) (
	json.RawMessage, error,
) {
	imported := map[string]any{"format": saved.Format, "saw": saved.Saw, "restorable": saved.Reading == ""}
	maps.Copy(imported, facts)
	doc := map[string]any{"memory_bytes": size, "imported": imported}
	if saved.VMM != "" {
		doc["vmm"] = saved.VMM
	}
	if len(regions) > 0 {
		var p pagetable.Info
		for _, r := range regions {
			p.Regions = append(p.Regions, pagetable.Region(r))
		}
		doc["paging"] = p
	}
	return json.MarshalIndent(doc, "", "  ")
}

// foreignMemory is an image as the store reads it.
type foreignMemory struct{ guestmem.Memory }

// Extents implements index.Memory.
func (m foreignMemory) Extents() ([]index.Run, error) {
	runs, err := m.Memory.Extents()
	if err != nil {
		return nil, err
	}
	out := make([]index.Run, len(runs))
	for i, r := range runs {
		out[i] = index.Run{GFN: r.First, Count: r.Count}
	}
	return out, nil
}

// stream is a stream as the store reads it.
type stream struct{ src *Source }

// Read implements index.Stream.
func (s stream) Read(ctx context.Context, put func(gfn uint64, pages []byte) error) (index.StreamEnd, error) {
	saved := s.src.saved
	var failed error // of the store, which says nothing of the format
	end, err := saved.Stream.Read(ctx, func(first uint64, pages []byte) error {
		failed = put(first, pages)
		return failed
	})
	switch {
	case failed != nil:
		return index.StreamEnd{}, failed
	case err != nil && ctx.Err() != nil:
		return index.StreamEnd{}, context.Cause(ctx)
	case err != nil:
		return index.StreamEnd{}, foreignError(err)
	}
	if end.Regions != nil {
		saved.Regions = end.Regions
	}
	if end.Reading != "" {
		saved.Reading, s.src.Reading = end.Reading, end.Reading
	}
	saved.Facts = with(saved.Facts, end.Facts)
	for name, path := range s.src.Files {
		if st, err := os.Stat(path); err == nil && st.Size() == 0 {
			delete(s.src.Files, name) // the store reads them now
		}
	}
	info, err := foreignInfo(saved, end.Size, saved.Regions, saved.Facts)
	return index.StreamEnd{Size: end.Size, Info: info}, err
}
