package index

import (
	"context"
	"fmt"

	"github.com/thawfs/thaw/index/pack"
)

// PackedState says how much of what a checkpoint refers to was repacked.
type PackedState string

const (
	PackedNo   PackedState = "no"
	PackedPart PackedState = "part" // some of its packs
	PackedYes  PackedState = "yes"  // or repacking would win nothing worth the while
)

// Packed is about how a checkpoint's pages are stored. It is found out from what the packs say of
// themselves, without their directories, and so is only about right: DryRun of a Repack looks closely.
type Packed struct {
	State PackedState `json:"state"`
	// Wins is about how many bytes repacking would save in packs that the checkpoint refers to. Others may
	// refer to them, too.
	Wins int64 `json:"wins_bytes"`
}

// Packed says of each checkpoint that List returned how it is stored, in the same order. It costs one small
// read for each pack.
func (s *Store) Packed(ctx context.Context, list []Checkpoint) ([]Packed, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	known := map[uint64]pack.Summary{}
	out := make([]Packed, len(list))
	for i := range list {
		e := s.entry(list[i].Name)
		if e == nil {
			continue
		}
		var err error
		if out[i], err = s.packedOf(ctx, e, known); err != nil {
			return nil, fmt.Errorf("checkpoint %s: %w", e.Name, err)
		}
	}
	return out, nil
}

// hardPage is what a page takes, in bytes, in a pack whose pages do not compress: nor do they in clusters.
const hardPage = PageSize * 31 / 32

func (s *Store) packedOf(ctx context.Context, e *catalogEntry, known map[uint64]pack.Summary) (
	Packed, error,
) {
	clustered, others := 0, int64(0) // packs that have clusters; bytes of those that have none
	for _, number := range e.packs {
		if number == e.segment {
			continue
		}
		sum, ok := known[number]
		if !ok {
			var err error
			if sum, err = s.summary(ctx, number); err != nil {
				return Packed{}, err
			}
			known[number] = sum
		}
		switch {
		case sum.Clusters > 0:
			clustered++
		case sum.Slots > 0 && sum.Bytes < int64(sum.Slots)*hardPage:
			others += sum.Bytes
		}
	}
	return e.packed(clustered, others), nil
}

// packed estimates what repacking saves of packs: a share of what no working set has, nor the pages near
// to it, which are taken to be as many.
func (e *catalogEntry) packed(clustered int, others int64) Packed {
	wins := others / clusterSaves
	if e.Profile == ProfileFast.String() {
		wins = 0 // its pages stay quick to read
	}
	if ws := e.WorkingSet; ws != nil && e.DataPages > 0 {
		used := min(2*float64(ws.Pages)/float64(e.DataPages), 1)
		wins = int64(float64(wins) * (1 - used))
	}
	switch {
	case wins == 0 || wins < others/worthShare:
		return Packed{State: PackedYes}
	case clustered > 0:
		return Packed{PackedPart, wins}
	}
	return Packed{PackedNo, wins}
}

// summary reads what a pack says of itself. Of one that is damaged or gone nothing is known: that is
// an error where it is read.
func (s *Store) summary(ctx context.Context, number uint64) (pack.Summary, error) {
	info, ok := s.packs.info(number)
	if !ok {
		return pack.Summary{}, nil
	}
	obj, err := s.blobs.Open(ctx, pack.Name(number, info.generation))
	if err == nil {
		defer obj.Close()
		var sum pack.Summary
		if sum, err = pack.Summarize(obj, pack.Name(number, info.generation)); err == nil {
			return sum, nil
		}
	}
	if isCorrupt(err) {
		return pack.Summary{}, nil
	}
	return pack.Summary{}, err
}
