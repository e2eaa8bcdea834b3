package s3_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/thawfs/thaw/index/blob/s3"
	"github.com/thawfs/thaw/tests/blobtest/s3fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// config is that of a store in the service of a test.
func config(server *s3fake.Server) s3.Config {
	return s3.Config{Bucket: "bucket", Prefix: "some/store", Endpoint: server.URL,
		AccessKey: "access", SecretKey: "secret", Limits: s3.Limits{Part: 5 << 20}}
}

func open(t testing.TB, c s3.Config) *s3.Store {
	t.Helper()
	s, err := s3.Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// quick are limits for tests in which the service does not answer.
func quick() s3.Limits {
	return s3.Limits{Part: 5 << 20, Read: 10 * time.Second, Answer: 150 * time.Millisecond,
		Request: 5 * time.Second}
}
