// Package retier stores the pages of a store hot, warm or cold, as a test wants them.
package retier

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// Packs writes the packs of a closed store again, in their places, with tiers as they are asked for, and
// returns how many clusters they have then.
func Packs(tb testing.TB, dir string, tier func(slot uint32) pack.Tier) (clusters int) {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "thaw-store.json"))
	if err != nil {
		tb.Fatal(err)
	}
	var of struct {
		HashKey string `json:"hash_key"`
	}
	if err := json.Unmarshal(text, &of); err != nil {
		tb.Fatal(err)
	}
	key, err := hex.DecodeString(of.HashKey)
	if err != nil {
		tb.Fatal(err)
	}
	blobs, err := blob.OpenDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	all, err := blobs.List(tb.Context(), pack.Prefix)
	if err != nil {
		tb.Fatal(err)
	}
	for _, b := range all {
		if _, _, ok := pack.ParseName(b.Name); ok {
			clusters += renew(tb, blobs, b.Name, pack.HashKey(key), tier)
		}
	}
	return clusters
}

func renew(tb testing.TB, blobs blob.Store, name string, key pack.HashKey, tier func(uint32) pack.Tier) (
	clusters int,
) {
	tb.Helper()
	check := func(err error) {
		if err != nil {
			tb.Helper()
			tb.Fatal(err)
		}
	}
	ctx := tb.Context()
	dec, err := pack.NewDecoder()
	check(err)
	defer dec.Close()
	obj, err := blobs.Open(ctx, name)
	check(err)
	old, err := pack.Open(obj, name, dec)
	check(err)
	defer old.Close()
	check(blobs.Remove(ctx, name)) // it stays readable
	bw, err := blobs.Create(ctx, name)
	check(err)
	w, err := pack.NewWriter(bw, old.Number(), old.Generation())
	check(err)
	w.Continue(old)
	enc, err := pack.NewEncoder(pack.ProfileDefault)
	check(err)
	check(pack.Rewrite(ctx, old, w, enc, key, pack.Keep{Tier: tier}))
	_, err = w.Finish()
	check(err)
	again, err := blobs.Open(ctx, name)
	check(err)
	renewed, err := pack.Open(again, name, dec)
	check(err)
	defer renewed.Close()
	return renewed.Clusters()
}
