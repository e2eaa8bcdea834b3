package perf

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
)

// usage is what a server takes of its host at one moment.
type usage struct {
	anon       int64 // bytes of memory that are its own
	files      int   // descriptors
	threads    int
	goroutines int
	heap       int64 // bytes of Go objects
}

func (u usage) max(o usage) usage {
	return usage{max(u.anon, o.anon), max(u.files, o.files), max(u.threads, o.threads),
		max(u.goroutines, o.goroutines), max(u.heap, o.heap)}
}

func (u usage) String() string {
	return fmt.Sprintf("%d MiB of its own, %d MiB of Go's heap, %d descriptors, %d goroutines, %d threads",
		u.anon>>20, u.heap>>20, u.files, u.goroutines, u.threads)
}

// watched is a mount whose server is looked at all the time.
type watched struct {
	*cli.Mounted
	t    *testing.T
	at   string // where its metrics are
	stop chan struct{}
	peak chan usage
}

// mountWatched mounts a store and begins to look at the server.
func mountWatched(t *testing.T, store string) *watched {
	t.Helper()
	return watch(t, cli.Mount(t, store, watchedFlags...))
}

// watchedFlags are those of a mount that is watched.
var watchedFlags = []string{"--debug-listen=127.0.0.1:0", "--repack=off"}

func watch(t *testing.T, m *cli.Mounted) *watched {
	t.Helper()
	w := &watched{Mounted: m, t: t, at: m.DebugURL(), stop: make(chan struct{}), peak: make(chan usage, 1)}
	go func() {
		peak := usage{}
		defer func() { w.peak <- peak }()
		again := time.NewTicker(50 * time.Millisecond)
		defer again.Stop()
		for {
			if u, err := w.look(); err == nil {
				peak = peak.max(u)
			}
			select {
			case <-w.stop:
				return
			case <-again.C:
			}
		}
	}()
	return w
}

// most ends the looking, and says what the server took at most.
func (w *watched) most() usage {
	close(w.stop)
	return <-w.peak
}

// settled is what the server takes when its garbage is collected.
func (w *watched) settled() usage {
	w.t.Helper()
	_, err := w.get("/debug/pprof/heap?gc=1")
	u := usage{}
	if err == nil {
		u, err = w.look()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

func (w *watched) look() (u usage, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.Pid()))
	if err != nil {
		return u, err
	}
	u.anon = number(string(status), `RssAnon:\s+(\d+) kB`) << 10
	u.threads = int(number(string(status), `Threads:\s+(\d+)`))
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", w.Pid()))
	if err != nil {
		return u, err
	}
	u.files = len(fds)
	text, err := w.get("/metrics")
	if err != nil {
		return u, err
	}
	u.goroutines = int(number(text, `\ngo_goroutines (\d+)`))
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "go_memstats_heap_alloc_bytes "); ok {
			f, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
			u.heap = int64(f)
		}
	}
	return u, nil
}

func (w *watched) get(path string) (string, error) {
	c := http.Client{Timeout: time.Minute}
	r, err := c.Get(w.at + path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return string(text), err
}

// number is what a pattern finds in a text; 0 if nothing.
func number(text, pattern string) int64 {
	found := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if found == nil {
		return 0
	}
	n, _ := strconv.ParseInt(found[1], 10, 64)
	return n
}
