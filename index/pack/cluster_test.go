package pack

import (
	"errors"
	"testing"
)

// A directory must put each clustered slot into one cluster, within the file.
func TestClusterDirectories(t *testing.T) {
	const body = 100000
	sound := func() *directory {
		d := &directory{
			blocks:  []blockEntry{{first: 0, off: headerSize + 2000, end: headerSize + 2000}},
			members: []uint32{1, 3, 0, 2},
			clusters: []clusterEntry{
				{headerSize, 1000, 0, 2, codecFrame}, {headerSize + 1000, 1000, 2, 2, codecFrame},
			},
		}
		for range 4 {
			d.slots = append(d.slots, nowhere)
		}
		return d
	}
	for _, c := range []struct {
		what   string
		change func(d *directory)
		ok     bool
	}{
		{"sound", func(*directory) {}, true},
		{"a slot twice in a cluster", func(d *directory) { d.members[1] = 1 }, false},
		{"a slot in two clusters", func(d *directory) { d.members[2] = 1 }, false},
		{"a slot in no cluster", func(d *directory) { d.clusters[1].pages = 1; d.members = d.members[:3] }, false},
		{"no clusters", func(d *directory) { d.clusters, d.members = nil, nil }, false},
		{"a slot that there is not", func(d *directory) { d.members[3] = 9 }, false},
		{"a slot that is dead", func(d *directory) { d.slots[2] = slotEntry{codec: codecDead} }, false},
		{"a slot of a unit", func(d *directory) { d.slots[2] = slotEntry{codec: codecZstd, len: 100} }, false},
		{"an empty cluster", func(d *directory) {
			d.clusters = append(d.clusters, clusterEntry{off: headerSize + 2000})
		}, false},
		{"an unknown codec", func(d *directory) { d.clusters[0].codec = codecLZ4 }, false},
		{"raw, of another length", func(d *directory) { d.clusters[0].codec = codecRaw }, false},
		{"longer than its pages", func(d *directory) { d.clusters[1].stored = 2*PageSize + crcSize }, false},
		{"nothing but a checksum", func(d *directory) { d.clusters[1].stored = crcSize }, false},
		{"beyond the body", func(d *directory) { d.clusters[1].off = body - 999 }, false},
		{"at the end of the body", func(d *directory) { d.clusters[1].off = body - 1000 }, true},
	} {
		d := sound()
		c.change(d)
		foot := footer{
			slots: 4, blocks: 1, clusters: uint32(len(d.clusters)), dir: section{off: body},
		}
		got, err := parseDirectory(d.append(nil), foot)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, errDirectory) {
			t.Errorf("%s: %v", c.what, err)
		}
		if c.ok && (got.slots[3] != slotEntry{off: 0, len: 1, codec: codecClustered} || got.slots[0].off != 1) {
			t.Errorf("%s: %+v", c.what, got.slots)
		}
	}
	// As many pages as a cluster may have, and one more.
	for _, pages := range []int{MaxClusterPages, MaxClusterPages + 1} {
		d := &directory{blocks: []blockEntry{{off: headerSize + 1000, end: headerSize + 1000}}}
		for i := range pages {
			d.slots, d.members = append(d.slots, nowhere), append(d.members, uint32(i))
		}
		d.clusters = []clusterEntry{{headerSize, 1000, 0, uint16(pages), codecFrame}}
		foot := footer{slots: uint32(pages), blocks: 1, clusters: 1, dir: section{off: body}}
		if _, err := parseDirectory(d.append(nil), foot); (err == nil) != (pages == MaxClusterPages) {
			t.Errorf("a cluster of %d pages: %v", pages, err)
		}
	}
}

// The number of clusters belongs to the version, and to the slots.
func TestClusterFooters(t *testing.T) {
	m, _, r := coldPack(t, ProfileDefault, 6)
	foot := r.foot
	for _, c := range []struct {
		version, clusters uint32
		ok                bool
	}{
		{tierVersion, foot.clusters, true}, {tierVersion, 0, true}, // then of units of LZ4
		{tierVersion, uint32(len(m.pages)) + 1, false}, {tierVersion, 1<<32 - 1, false},
	} {
		f := foot
		f.version, f.clusters = c.version, c.clusters
		if _, err := parseFooter(f.append(nil), int64(f.size)); (err == nil) != c.ok {
			t.Errorf("version %d, %d clusters: %v", c.version, c.clusters, err)
		}
	}
}
