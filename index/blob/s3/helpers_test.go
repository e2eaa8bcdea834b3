package s3_test

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/thawfs/thaw/tests/blobtest/s3fake"
)

// startHandler starts a service that has nothing, and shows each request.
func startHandler(t *testing.T, see func(*http.Request)) (url string) {
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		see(r)
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(h.Close)
	return h.URL
}

// startService starts a service, and shows each request before it is served, one at a time.
func startService(t *testing.T, s *s3fake.Service, see func(kind string, r *http.Request)) (url string) {
	var mu sync.Mutex
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		see(string(s3fake.KindOf(r)), r)
		mu.Unlock()
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	return h.URL
}
