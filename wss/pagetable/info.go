package pagetable

import (
	"encoding/json"
	"fmt"
)

// Info is what a VMM can say about the page tables in the image of a checkpoint: the member "paging" of
// its info.json.
//
//	"paging": {
//	  "levels":   4,                 // 4 or 5
//	  "roots":    [4222976, 180224], // guest-physical addresses: each processor's CR3, without its
//	                                 // low 12 bits and flags
//	  "complete": false,             // true: there are no other address spaces to look for
//	  "regions":  [{"gpa": 0, "bytes": 3221225472, "offset": 0},
//	               {"gpa": 4294967296, "bytes": 1073741824, "offset": 3221225472}]
//	}
//
// regions map guest-physical memory to the image. They can be omitted if the image is guest-physical
// memory byte for byte, holes included. roots and levels can be omitted, too: then they are searched
// for.
type Info struct {
	Levels   int      `json:"levels,omitempty"`
	Roots    []uint64 `json:"roots,omitempty"`
	Complete bool     `json:"complete,omitempty"`
	Regions  []Region `json:"regions,omitempty"`
}

// ParseInfo returns the member "paging" of an info.json; it is empty if there is none.
func ParseInfo(infoJSON []byte) (Info, error) {
	if len(infoJSON) == 0 {
		return Info{}, nil
	}
	var doc struct {
		Paging *Info `json:"paging"`
	}
	if err := json.Unmarshal(infoJSON, &doc); err != nil {
		return Info{}, fmt.Errorf("info.json: paging: %w", err)
	}
	if doc.Paging == nil {
		return Info{}, nil
	}
	if n := doc.Paging.Levels; len(doc.Paging.Roots) > 0 && n != 4 && n != 5 {
		return Info{}, fmt.Errorf("info.json: paging: the levels are %d, and must be 4 or 5", n)
	}
	return *doc.Paging, nil
}

// Known returns the roots that the VMM has saved, each once.
func (i Info) Known() (roots []Root) {
	seen := map[uint64]bool{}
	for _, gpa := range i.Roots {
		if gpa &= AddressMask; !seen[gpa] {
			seen[gpa] = true
			roots = append(roots, Root{gpa, i.Levels})
		}
	}
	return roots
}

// With returns known and those roots of found that are not in it.
func With(known, found []Root) []Root {
	seen := map[Root]bool{}
	for _, r := range known {
		seen[r] = true
	}
	for _, r := range found {
		if !seen[r] {
			known = append(known, r)
		}
	}
	return known
}
