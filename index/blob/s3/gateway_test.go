package s3_test

import (
	"bytes"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/blob/s3"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/gateway"
	"github.com/thawfs/thaw/tests/blobtest/s3fake"
)

// TestGateway: all of it with a service that somebody else has written: its signatures, conditions,
// multipart uploads, listings.
func TestGateway(t *testing.T) {
	if testing.Short() {
		t.Skip("not in the short run: it builds versitygw, which takes minutes the first time")
	}
	var b gateway.Builder
	defer b.Remove()
	c := func(url string) s3.Config {
		return s3.Config{Bucket: "bucket", Prefix: "some/store", Endpoint: url,
			AccessKey: gateway.AccessKey, SecretKey: gateway.SecretKey, Limits: s3.Limits{Part: 5 << 20}}
	}
	t.Run("suite", func(t *testing.T) {
		urls := map[blob.Store]string{}
		made := func(t *testing.T, url string) blob.Store {
			s := open(t, c(url))
			urls[s] = url
			return s
		}
		blobtest.Suite{
			New:    func(t *testing.T) blob.Store { return made(t, b.Start(t, "bucket")) },
			Reopen: func(t *testing.T, s blob.Store) blob.Store { return made(t, urls[s]) },
		}.Run(t)
	})
	t.Run("through a proxy", func(t *testing.T) {
		proxy := s3fake.Forward(t, b.Start(t, "bucket"))
		s := open(t, c(proxy.URL))
		got, err := s.Probe(t.Context())
		if err != nil || !got.All() {
			t.Errorf("conditions: %+v, %v", got, err)
		}
		data := noise(12<<20 + 5)
		proxy.SetPlan(on(s3fake.Complete, 1, s3fake.Fault{After: true}))
		blobtest.Put(t, s, "a", data)
		if !bytes.Equal(blobtest.Get(t, s, "a"), data) {
			t.Error("it has other bytes")
		}
		proxy.SetPlan(nil)
		proxy.Counts()
		o, err := s.Open(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		if n := proxy.Counts(); n[s3fake.Get] != 1 || len(n) != 1 {
			t.Errorf("open: %v", n)
		}
	})
	t.Run("wrong key", func(t *testing.T) {
		wrong := c(b.Start(t, "bucket"))
		wrong.SecretKey = "wrong"
		if _, err := open(t, wrong).List(t.Context(), ""); err == nil {
			t.Error("anybody may list")
		}
	})
}
