package s3_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/blob/s3"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/s3fake"
)

func TestSuite(t *testing.T) {
	for name, change := range map[string]func(*s3.Config){
		"as usual":      func(*s3.Config) {},
		"no prefix":     func(c *s3.Config) { c.Prefix = "" },
		"small tail":    func(c *s3.Config) { c.Limits.Tail = 100 },
		"unconditional": func(c *s3.Config) { c.Unconditional = true },
	} {
		t.Run(name, func(t *testing.T) {
			configs := map[blob.Store]s3.Config{}
			made := func(t *testing.T, c s3.Config) blob.Store {
				s := open(t, c)
				configs[s] = c
				return s
			}
			suite := blobtest.Suite{
				New: func(t *testing.T) blob.Store {
					c := config(s3fake.Start(t))
					change(&c)
					return made(t, c)
				},
				Reopen: func(t *testing.T, s blob.Store) blob.Store { return made(t, configs[s]) },
			}
			if name == "unconditional" {
				suite.OneWriter = true
			}
			suite.Run(t)
		})
	}
}

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestRequests: what is read costs one request, and what is written as few as there can be.
func TestRequests(t *testing.T) {
	ctx := t.Context()
	server := s3fake.Start(t)
	s := open(t, config(server))
	small, large := noise(3<<20), noise(12<<20)
	expect := func(what string, want map[s3fake.Kind]int) {
		t.Helper()
		if d := cmp.Diff(want, server.Counts()); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	blobtest.Put(t, s, "small", small)
	expect("3 MiB", map[s3fake.Kind]int{s3fake.Head: 1, s3fake.Put: 1})
	blobtest.Put(t, s, "large", large)
	expect("12 MiB", map[s3fake.Kind]int{s3fake.Head: 1, s3fake.Begin: 1, s3fake.Part: 3, s3fake.Complete: 1})
	o, err := s.Open(ctx, "large")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	end := make([]byte, 1000)
	if _, err := o.ReadAt(end, o.Size()-1000); err != nil || !bytes.Equal(end, large[len(large)-1000:]) {
		t.Errorf("end: %v", err)
	}
	expect("open, and the end", map[s3fake.Kind]int{s3fake.Get: 1})
	all := make([]byte, len(large))
	if _, err := o.ReadAt(all, 0); err != nil || !bytes.Equal(all, large) {
		t.Errorf("all: %v", err)
	}
	expect("12 MiB", map[s3fake.Kind]int{s3fake.Get: 1})
	if _, err := s.List(ctx, ""); err != nil {
		t.Error(err)
	}
	expect("list", map[s3fake.Kind]int{s3fake.List: 1})
	if err := s.Remove(ctx, "large"); err != nil {
		t.Error(err)
	}
	expect("remove", map[s3fake.Kind]int{s3fake.Head: 1, s3fake.Delete: 1})
}

// TestTailsAreBounded: of many open objects the ends of some are kept, and all can be read.
func TestTailsAreBounded(t *testing.T) {
	server := s3fake.Start(t)
	s := open(t, config(server))
	data := noise(1000)
	blobtest.Put(t, s, "a", data)
	var all []blob.Object
	for range 40 {
		o, err := s.Open(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		all = append(all, o)
	}
	server.Counts()
	for _, o := range all {
		got := make([]byte, len(data))
		if _, err := o.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
			t.Error(err)
		}
	}
	if n := server.Counts()[s3fake.Get]; n != 40-16 {
		t.Errorf("%d reads were requests", n)
	}
}

// TestReplaced: an open object whose place another one has taken, of the same size, fails; it never has the
// other's bytes.
func TestReplaced(t *testing.T) {
	server := s3fake.Start(t)
	c := config(server)
	c.Limits.Tail = 10
	s := open(t, c)
	blobtest.Put(t, s, "a", bytes.Repeat([]byte("old "), 1000))
	o, err := s.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := s.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if _, err := o.ReadAt(b, 0); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("removed: %v", err)
	}
	blobtest.Put(t, s, "a", bytes.Repeat([]byte("new "), 1000))
	if _, err := o.ReadAt(b, 0); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("replaced: %v, %q", err, b)
	}
}

// TestProbe: a service that applies no conditions is found out, and nothing is left of the probe.
func TestProbe(t *testing.T) {
	for name, unconditional := range map[string]bool{"good": false, "bad": true} {
		t.Run(name, func(t *testing.T) {
			server := s3fake.Start(t)
			server.Unconditional = unconditional
			got, err := open(t, config(server)).Probe(t.Context())
			want := s3.Conditions{Put: !unconditional, Multipart: !unconditional, Race: !unconditional}
			if err != nil || got != want {
				t.Errorf("%+v, %v", got, err)
			}
			if keys := server.Keys("bucket"); len(keys) != 0 || server.Uploads() != 0 {
				t.Errorf("left behind: %q, %d uploads", keys, server.Uploads())
			}
		})
	}
}

// TestSweep: uploads of a process that died are forgotten when they are old enough.
func TestSweep(t *testing.T) {
	server := s3fake.Start(t)
	s := open(t, config(server))
	w, err := s.Create(t.Context(), "dead")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(noise(11 << 20)); err != nil {
		t.Fatal(err)
	}
	s.Close() // nobody aborts
	if server.Uploads() != 1 {
		t.Fatalf("%d uploads", server.Uploads())
	}
	s = open(t, config(server))
	server.Age(2 * time.Hour)
	for _, c := range []struct {
		age  time.Duration
		want int
	}{{3 * time.Hour, 0}, {time.Hour, 1}, {time.Hour, 0}} {
		if n, err := s.Sweep(t.Context(), c.age); n != c.want || err != nil {
			t.Errorf("%v: %d, %v", c.age, n, err)
		}
	}
	if server.Uploads() != 0 {
		t.Error("it is still there")
	}
	if err := w.Abort(); err == nil {
		t.Log("abort of a closed store's writer says nothing")
	}
}

// TestAbort: the parts of an upload that is given up are forgotten at once.
func TestAbort(t *testing.T) {
	server := s3fake.Start(t)
	s := open(t, config(server))
	w, err := s.Create(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(noise(12 << 20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil || server.Uploads() != 0 {
		t.Errorf("%v, %d uploads", err, server.Uploads())
	}
}

// TestWhoAsks: credentials are found where everybody has them, and their lack is an error.
func TestWhoAsks(t *testing.T) {
	home := t.TempDir()
	for _, v := range []string{"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY",
		"MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "AWS_PROFILE",
		"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"} {
		t.Setenv(v, "")
	}
	t.Setenv("HOME", home)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	server := s3fake.Start(t)
	c := config(server)
	c.AccessKey, c.SecretKey = "", ""
	if _, err := s3.Open(t.Context(), c); !errors.Is(err, s3.ErrNoCredentials) ||
		!strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
		t.Errorf("nobody: %v", err)
	}
	// asks returns the key that signs a request.
	asks := func(c s3.Config) (key string) {
		t.Helper()
		seen := make(chan string, 1)
		service := startHandler(t, func(r *http.Request) { seen <- r.Header.Get("Authorization") })
		c.Endpoint = service
		s := open(t, c)
		_, _ = s.Open(t.Context(), "a")
		_, rest, _ := strings.Cut(<-seen, "Credential=")
		key, _, _ = strings.Cut(rest, "/")
		return key
	}
	c.Anonymous = true
	if key := asks(c); key != "" {
		t.Errorf("anonymous: %s", key)
	}
	c.Anonymous = false
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := "[default]\naws_access_key_id = file\naws_secret_access_key = x\n" +
		"[other]\naws_access_key_id = profile\naws_secret_access_key = x\n"
	if err := os.WriteFile(filepath.Join(home, ".aws/credentials"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if key := asks(c); key != "file" {
		t.Errorf("file: %s", key)
	}
	t.Setenv("AWS_PROFILE", "other")
	if key := asks(c); key != "profile" {
		t.Errorf("profile: %s", key)
	}
	t.Setenv("MINIO_ACCESS_KEY", "minio")
	t.Setenv("MINIO_SECRET_KEY", "x")
	if key := asks(c); key != "minio" {
		t.Errorf("MinIO: %s", key)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "env")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "x")
	if key := asks(c); key != "env" {
		t.Errorf("environment: %s", key)
	}
	c.AccessKey, c.SecretKey = "given", "x"
	if key := asks(c); key != "given" {
		t.Errorf("given: %s", key)
	}
}

// TestEncryption: what the service must do is said with each request that needs it.
func TestEncryption(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, noise(32), 0o600); err != nil {
		t.Fatal(err)
	}
	const (
		generic  = "X-Amz-Server-Side-Encryption"
		kms      = "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"
		customer = "X-Amz-Server-Side-Encryption-Customer-Algorithm"
	)
	for name, want := range map[string]map[string][]string{
		"":                {},
		"s3":              {"PUT": {generic + "=AES256"}, "BEGIN": {generic + "=AES256"}},
		"kms":             {"PUT": {generic + "=aws:kms"}, "BEGIN": {generic + "=aws:kms"}},
		"kms:my/key":      {"PUT": {generic + "=aws:kms", kms + "=my/key"}},
		"customer:" + key: {"PUT": {customer + "=AES256"}, "PART": {customer + "=AES256"}, "GET": {customer + "=AES256"}},
	} {
		t.Run(name, func(t *testing.T) {
			inner := s3fake.NewService()
			headers := map[string]http.Header{}
			server := startService(t, inner, func(kind string, r *http.Request) { headers[kind] = r.Header.Clone() })
			c := config(&s3fake.Server{URL: server})
			c.Encryption, c.Limits.Parallel = name, 1
			s := open(t, c)
			blobtest.Put(t, s, "small", noise(10))
			blobtest.Put(t, s, "large", noise(6<<20))
			blobtest.Get(t, s, "small")
			for kind, lines := range want {
				for _, line := range lines {
					header, value, _ := strings.Cut(line, "=")
					if got := headers[kind].Get(header); got != value {
						t.Errorf("%s: %s: %q", kind, header, got)
					}
				}
			}
			if name == "" && headers["PUT"].Get(generic) != "" {
				t.Error("encryption that nobody asked for")
			}
		})
	}
	for _, bad := range []string{"S3", "aes", "customer", "customer:/none", "kms=x"} {
		c := config(&s3fake.Server{URL: "http://localhost:1"})
		c.Encryption = bad
		if _, err := s3.Open(t.Context(), c); err == nil {
			t.Errorf("%q is an encryption", bad)
		}
	}
}

// TestMissingBucket is no missing blob.
func TestMissingBucket(t *testing.T) {
	c := config(s3fake.Start(t))
	c.Bucket = "missing"
	s := open(t, c)
	if _, err := s.Open(t.Context(), "a"); err == nil || errors.Is(err, blob.ErrNotFound) ||
		!strings.Contains(err.Error(), "no such bucket") {
		t.Errorf("open: %v", err)
	}
	if _, err := s.List(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "no such bucket") {
		t.Errorf("list: %v", err)
	}
}

// TestClosed: requests of a closed store end at once.
func TestClosed(t *testing.T) {
	server := s3fake.Start(t)
	c := config(server)
	c.Limits.Tail = 10
	s := open(t, c)
	blobtest.Put(t, s, "a", noise(1000))
	o, err := s.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	arrived := make(chan struct{}, 10)
	server.SetPlan(func(s3fake.Request) s3fake.Fault {
		arrived <- struct{}{}
		return s3fake.Fault{Hang: true}
	})
	done := make(chan error)
	go func() {
		_, err := o.ReadAt(make([]byte, 10), 0)
		done <- err
	}()
	<-arrived
	s.Close()
	if err := <-done; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read: %v", err)
	}
	if _, err := s.Open(context.Background(), "a"); err == nil {
		t.Error("open succeeds")
	}
}
