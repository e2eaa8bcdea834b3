package s3fake

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Kind is what a request is for.
type Kind string

// The kinds of requests.
const (
	Get      Kind = "GET"
	Head     Kind = "HEAD"
	List     Kind = "LIST"
	Put      Kind = "PUT"
	Begin    Kind = "BEGIN" // a multipart upload
	Part     Kind = "PART"
	Complete Kind = "COMPLETE"
	Abort    Kind = "ABORT"
	Delete   Kind = "DELETE"
	Other    Kind = "OTHER"
)

// Request is one request as a Plan sees it.
type Request struct {
	N    int // 1 is the first
	Kind Kind
	Path string // bucket/key
}

// Fault is what happens to a request. The zero Fault is none.
type Fault struct {
	Delay time.Duration // before anything else; less if the client goes away
	Hang  bool          // no answer, until the client goes away or the proxy ends
	Drop  bool          // the connection is closed, and nothing is done
	// Status and Code answer in the service's place; with After the service does what it was asked for
	// before, and nobody learns of it. A Status of 0 with After closes the connection instead.
	Status int
	Code   string
	After  bool
	// Cut closes the connection after CutAt bytes of the body; with Stall it is silent there instead.
	Cut   bool
	CutAt int
	Stall bool
	// Shift answers with the range that begins so many bytes later. Whole answers with all of the object.
	Shift int
	Whole bool
	// Flip changes one bit of the body.
	Flip bool
}

// Plan says what happens to a request. It is called with the proxy's lock held.
type Plan func(Request) Fault

// Proxy is an http.Handler before another one.
type Proxy struct {
	inner http.Handler
	done  chan struct{} // closed when the test ends

	mu     sync.Mutex
	plan   Plan         // guarded by mu, as all below
	counts map[Kind]int // of requests
	bytes  int64        // of answers
	n      int
}

// Server is a running Proxy.
type Server struct {
	*Proxy
	*Service // nil if the requests go to another process
	URL      string
}

// Start starts a Service with a Proxy before it, until the test ends.
func Start(tb testing.TB) *Server {
	s := NewService()
	server := serve(tb, s)
	server.Service = s
	return server
}

// Forward starts a Proxy before the service at an URL.
func Forward(tb testing.TB, to string) *Server {
	u, err := url.Parse(to)
	if err != nil {
		tb.Fatal(err)
	}
	connections := &http.Transport{MaxIdleConnsPerHost: 64}
	tb.Cleanup(connections.CloseIdleConnections)
	return serve(tb, &httputil.ReverseProxy{Transport: connections, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.Host = r.In.Host // it is signed
	}})
}

func serve(tb testing.TB, inner http.Handler) *Server {
	p := &Proxy{inner: inner, done: make(chan struct{}), counts: map[Kind]int{}}
	h := httptest.NewServer(p)
	tb.Cleanup(func() {
		close(p.done)
		h.CloseClientConnections()
		h.Close()
	})
	return &Server{Proxy: p, URL: h.URL}
}

// SetPlan replaces the plan; nil: nothing fails.
func (p *Proxy) SetPlan(plan Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = plan
}

// Counts returns how many requests of each kind there were, and forgets them.
func (p *Proxy) Counts() map[Kind]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := p.counts
	p.counts = map[Kind]int{}
	return counts
}

// Bytes is how many bytes answers had so far.
func (p *Proxy) Bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes
}

// KindOf says what a request is for.
func KindOf(r *http.Request) Kind {
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q := r.URL.Query()
	upload := q.Has("uploadId")
	switch {
	case key == "":
		if r.Method == http.MethodGet {
			return List
		}
		return Other
	case r.Method == http.MethodPost && q.Has("uploads"):
		return Begin
	case r.Method == http.MethodPost && upload:
		return Complete
	case r.Method == http.MethodPut && upload:
		return Part
	case r.Method == http.MethodDelete && upload:
		return Abort
	}
	return Kind(r.Method)
}

// next counts a request and says what happens to it.
func (p *Proxy) next(r *http.Request) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := KindOf(r)
	p.n++
	p.counts[k]++
	if p.plan == nil {
		return Fault{}
	}
	return p.plan(Request{N: p.n, Kind: k, Path: strings.TrimPrefix(r.URL.Path, "/")})
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := p.next(r)
	ctx := r.Context()
	body, err := io.ReadAll(r.Body) // so that the server notices when the client goes away
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if f.Hang {
		p.wait(ctx, nil)
		return
	}
	if f.Delay > 0 && !p.wait(ctx, time.After(f.Delay)) {
		return
	}
	if f.Drop {
		panic(http.ErrAbortHandler)
	}
	if f.Status != 0 && !f.After {
		answerError(w, r, &fault{Status: f.Status, Code: f.Code})
		return
	}
	f.shift(r)
	rec := httptest.NewRecorder()
	p.inner.ServeHTTP(rec, r.WithContext(context.WithoutCancel(ctx)))
	switch {
	case f.After && f.Status != 0:
		answerError(w, r, &fault{Status: f.Status, Code: f.Code})
	case f.After:
		panic(http.ErrAbortHandler)
	default:
		p.deliver(ctx, w, rec, f)
	}
}

// wait returns true when c has something, and false when the client or the test has gone.
func (p *Proxy) wait(ctx context.Context, c <-chan time.Time) bool {
	select {
	case <-c:
		return true
	case <-ctx.Done():
	case <-p.done:
	}
	return false
}

// shift changes the range of a request.
func (f Fault) shift(r *http.Request) {
	if f.Whole {
		r.Header.Del("Range")
	}
	from, to, ok := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")
	a, err1 := strconv.Atoi(from)
	b, err2 := strconv.Atoi(to)
	if f.Shift != 0 && ok && err1 == nil && err2 == nil {
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", a+f.Shift, b+f.Shift))
	}
}

// deliver sends what the service answered, as the fault leaves it.
func (p *Proxy) deliver(ctx context.Context, w http.ResponseWriter, rec *httptest.ResponseRecorder, f Fault) {
	body := rec.Body.Bytes()
	if f.Flip && len(body) > 0 {
		body = bytes.Clone(body)
		body[len(body)/2] ^= 4
	}
	maps.Copy(w.Header(), rec.Header())
	w.WriteHeader(rec.Code)
	if f.Cut && f.CutAt < len(body) {
		_, _ = w.Write(body[:f.CutAt])
		_ = http.NewResponseController(w).Flush()
		if f.Stall {
			p.wait(ctx, nil)
		}
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes += int64(len(body))
}
