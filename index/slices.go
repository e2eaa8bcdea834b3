package index

import (
	"cmp"
	"maps"
	"slices"
)

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func searchUint64(s []uint64, v uint64) (int, bool) { return slices.BinarySearch(s, v) }
