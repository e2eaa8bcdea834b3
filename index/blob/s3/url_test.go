package s3

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseURL(t *testing.T) {
	nothing := func(string) string { return "" }
	env := func(name string) string {
		return map[string]string{"AWS_ENDPOINT_URL": "http://env", "AWS_REGION": "eu-north-1", "AWS_CA_BUNDLE": "/ca"}[name]
	}
	for _, c := range []struct {
		url    string
		getenv func(string) string
		want   Config
	}{
		{"s3://b", nothing, Config{Bucket: "b"}},
		{"s3://b/", nothing, Config{Bucket: "b"}},
		{"s3://b/p/q/", nothing, Config{Bucket: "b", Prefix: "p/q"}},
		{"s3://b/p?region=x&endpoint=https://h:9000&ca=/f&encryption=kms:k&anonymous=yes", nothing,
			Config{Bucket: "b", Prefix: "p", Region: "x", Endpoint: "https://h:9000", CA: "/f",
				Encryption: "kms:k", Anonymous: true}},
		{"s3://b/p", env, Config{Bucket: "b", Prefix: "p", Endpoint: "http://env", Region: "eu-north-1", CA: "/ca"}},
		{"s3://b/p?endpoint=&region=x", env, Config{Bucket: "b", Prefix: "p", Region: "x", CA: "/ca"}},
	} {
		got, err := ParseURL(c.url, c.getenv)
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%s: %v %s", c.url, err, d)
		}
	}
	for url, says := range map[string]string{
		"":                    "must begin",
		"/srv/store":          "must begin",
		"s3://":               "bucket",
		"s3:///p":             "bucket",
		"s3://b/.hidden":      "prefix",
		"s3://b/a//b":         "prefix",
		"s3://b?secret=x":     "unknown option",
		"s3://b?anonymous=no": "only yes",
		"s3://b?region=%zz":   "escape",
	} {
		if c, err := ParseURL(url, nothing); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v", url, c, err)
		}
	}
}

// FuzzParseURL: what is accepted is within its prefix, and its location is accepted again.
func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"s3://b/p", "s3://b?region=x", "s3://b/a/../b", "s3://b/p?anonymous=yes&ca=%2f"} {
		f.Add(s)
	}
	nothing := func(string) string { return "" }
	f.Fuzz(func(t *testing.T, url string) {
		c, err := ParseURL(url, nothing)
		if err != nil {
			return
		}
		again, err := ParseURL(c.Location(), nothing)
		if err != nil || again.Bucket != c.Bucket || again.Prefix != c.Prefix {
			t.Errorf("%q: %q: %v", url, c.Location(), err)
		}
		if strings.Contains(c.Prefix, "..") && strings.Contains("/"+c.Prefix, "/.") {
			t.Errorf("%q: prefix %q", url, c.Prefix)
		}
	})
}

func FuzzRangeOf(f *testing.F) {
	f.Add("bytes 0-9/100", int64(10))
	f.Add("bytes 9-0/100", int64(-1))
	f.Fuzz(func(t *testing.T, text string, length int64) {
		off, n, size, err := rangeOf(map[string][]string{"Content-Range": {text}}, length)
		if err == nil && (off < 0 || n < 0 || off+n > size || text != "" && n == 0 || length >= 0 && n != length) {
			t.Errorf("%q of %d: %d bytes at %d of %d", text, length, n, off, size)
		}
	})
}
