package index

import (
	"maps"
	"testing"
)

// What was imported to stay fast is repacked only if it is named.
func TestRepackLeavesFast(t *testing.T) {
	s := openTest(t, t.TempDir()+"/s", nil)
	s.limits.packPages = 200
	r := newRand(t)
	src := writeSource(t, testImage(likeMemory(r, 700)).bytes(), nil)
	if _, _, err := s.Import(t.Context(), src, ImportOptions{Name: "fast", Profile: ProfileFast}); err != nil {
		t.Fatal(err)
	}
	before := s.generations()
	if rep := mustRepack(t, s, RepackOptions{}); rep.Packs != 0 || !maps.Equal(s.generations(), before) {
		t.Errorf("%+v", rep)
	}
	if rep := mustRepack(t, s, RepackOptions{Names: []string{"fast"}}); rep.Repacked == 0 {
		t.Errorf("by its name: %+v", rep)
	}
	checkClean(t, s, true)
}
