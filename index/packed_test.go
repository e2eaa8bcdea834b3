package index

import (
	"context"
	"math/rand/v2"
	"testing"
)

// What is said of a checkpoint without its directories is about right.
func TestPacked(t *testing.T) {
	ctx := context.Background()
	s := openTest(t, t.TempDir()+"/s", nil)
	threeCheckpoints(t, s, newRand(t))
	state := func() (states string, wins int64) {
		t.Helper()
		list, err := s.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		packed, err := s.Packed(ctx, list)
		if err != nil || len(packed) != len(list) {
			t.Fatalf("%v, %v", packed, err)
		}
		for _, p := range packed {
			states += " " + string(p.State)
			wins += p.Wins
		}
		return states, wins
	}
	if states, wins := state(); states != " no no no" || wins == 0 {
		t.Errorf("%s, %d", states, wins)
	}
	mustRepack(t, s, RepackOptions{Names: []string{"c"}, Own: true})
	if states, _ := state(); states != " no no part" {
		t.Errorf("%s", states)
	}
	mustRepack(t, s, RepackOptions{})
	if states, wins := state(); states != " yes yes yes" || wins != 0 {
		t.Errorf("%s, %d", states, wins)
	}
}

// Of pages that do not compress nothing is promised: a Repack leaves them alone.
func TestPackedIncompressible(t *testing.T) {
	s := openTest(t, t.TempDir()+"/s", nil)
	b := make([]byte, 300*PageSize)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(b)
	c, _ := mustImport(t, s, "a", writeSource(t, b, nil), nil)
	packed, err := s.Packed(t.Context(), []Checkpoint{c})
	if err != nil || packed[0] != (Packed{State: PackedYes}) {
		t.Errorf("%+v, %v", packed, err)
	}
	if rep := mustRepack(t, s, RepackOptions{}); rep.Repacked != 0 {
		t.Errorf("%+v", rep)
	}
}
