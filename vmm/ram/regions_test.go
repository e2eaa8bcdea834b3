package ram

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRAMRegions(t *testing.T) {
	for bytes, want := range map[uint64][]Region{
		MinMemory:     {{0, MinMemory}},
		1 << 30:       {{0, 1 << 30}},
		holeStart:     {{0, holeStart}},
		8 << 30:       {{0, holeStart}, {holeEnd, 8<<30 - holeStart}},
		0:             nil,
		MinMemory - 1: nil,
		MinMemory + 1: nil,
		MaxMemory * 2: nil,
	} {
		got, err := Layout(bytes)
		if (err == nil) != (want != nil) || !cmp.Equal(got, want) {
			t.Errorf("%#x bytes: %+v, %v", bytes, got, err)
		}
		if err == nil && (Total(got) != bytes || CheckLayout(got) != nil) {
			t.Errorf("%#x bytes: %d in %+v, %v", bytes, Total(got), got, CheckLayout(got))
		}
	}
}
