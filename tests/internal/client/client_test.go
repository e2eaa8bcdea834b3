package client

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestMain(m *testing.M) {
	MainIfChild()
	os.Exit(m.Run())
}

// TestClient checks the instrument: right and wrong pages, a lost page, errors with their names.
func TestClient(t *testing.T) {
	dir := t.TempDir()
	good, other := filepath.Join(dir, "good"), filepath.Join(dir, "other")
	data := bytes.Repeat([]byte("0123456789abcdef"), 8*pageSize/16)
	if err := os.WriteFile(good, data, 0o644); err != nil {
		t.Fatal(err)
	}
	data[5*pageSize+100]++
	if err := os.WriteFile(other, data, 0o644); err != nil {
		t.Fatal(err)
	}
	c := Start(t, nil)
	if a := c.Open(t, good, Map{Private: true, Random: true}); a.Size != 8*pageSize {
		t.Errorf("size %d", a.Size)
	}
	c.Right(t, Request{Count: 8, Order: "random", Seed: 1, Source: good})
	a := c.Must(t, Request{Op: "touch", Count: 8, Source: other, Times: true})
	if len(a.Wrong) != 1 || a.Wrong[0] != 5 || len(a.NS) != 8 {
		t.Errorf("wrong pages %v, %d times; want page 5 and 8 times", a.Wrong, len(a.NS))
	}
	a = c.Must(t, Request{Op: "readall", Length: 3 * pageSize, Source: other})
	if len(a.Wrong) != 1 || a.Wrong[0] != 5 || a.Pages != 8 {
		t.Errorf("read: wrong pages %v of %d", a.Wrong, a.Pages)
	}
	// A mapping beyond the end of its file gives SIGBUS.
	if err := os.Truncate(good, 4*pageSize); err != nil {
		t.Fatal(err)
	}
	a = c.Must(t, Request{Op: "touch", GFNs: []uint64{0, 6}})
	if len(a.Lost) != 1 || a.Lost[0] != 6 {
		t.Errorf("lost pages %v, want page 6", a.Lost)
	}
	if a := c.Do(t, Request{Op: "open", Path: dir + "/none"}); a.Errno != "ENOENT" {
		t.Errorf("open of a missing file: %q", a.Errno)
	}
}
