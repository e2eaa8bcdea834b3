package index

import "testing"

// All pages of what was imported to be fast stay quick to read, also where it is named; what others have
// beside them in the same packs is repacked.
func TestRepackKeepsFast(t *testing.T) {
	ctx := t.Context()
	s := openTest(t, t.TempDir()+"/s", nil)
	r := newRand(t)
	img := testImage(likeMemory(r, 700))
	mustImport(t, s, "small", writeSource(t, img.bytes(), nil), nil)
	part := append(testImage(nil), img[:300]...)
	o := ImportOptions{Name: "fast", Profile: ProfileFast}
	if _, _, err := s.Import(ctx, writeSource(t, part.bytes(), nil), o); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := s.Packed(ctx, list)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range list {
		if fast := c.Name == "fast"; fast != (packed[i].State == PackedYes) || fast != (c.Profile == "fast") {
			t.Errorf("%s: %+v, profile %q", c.Name, packed[i], c.Profile)
		}
	}
	if rep := mustRepack(t, s, RepackOptions{Names: []string{"fast", "small"}}); rep.ColdPages == 0 {
		t.Errorf("%+v", rep)
	}
	tiered(t, s, "fast", []Run{{0, 300}}, nil)
	if rep := mustRepack(t, s, RepackOptions{}); rep.Repacked != 0 {
		t.Errorf("once more: %+v", rep)
	}
	sameImages(t, s, map[string]testImage{"small": img, "fast": part})
	checkClean(t, s, true)
}
