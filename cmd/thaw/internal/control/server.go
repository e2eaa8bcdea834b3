package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxRequest bounds a request's body: a working set as text is the largest thing in one.
const maxRequest = 256 << 20

// progressInterval is how often progress crosses the socket at most, but for a new stage.
const progressInterval = 100 * time.Millisecond

// Handler does one verb. ctx ends when the client goes away or the server closes.
type Handler func(ctx context.Context, req json.RawMessage, progress func(Progress)) (any, error)

// Handle makes a Handler of a function that takes its request decoded.
func Handle[Req any](f func(ctx context.Context, req Req, progress func(Progress)) (any,
	error)) Handler {
	return func(ctx context.Context, raw json.RawMessage, progress func(Progress)) (any, error) {
		var req Req
		if err := json.Unmarshal(raw, &req); err != nil {
			return nil, fmt.Errorf("request: %w", err)
		}
		return f(ctx, req, progress)
	}
}

// Server answers on a control socket.
type Server struct {
	http     *http.Server
	cancel   context.CancelFunc
	classify Classify
	log      *slog.Logger
	done     chan struct{}
}

// Serve begins to answer on l, one goroutine a connection. Close ends it.
func Serve(l net.Listener, verbs map[string]Handler, classify Classify, log *slog.Logger) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{cancel: cancel, classify: classify, log: log, done: make(chan struct{})}
	mux := http.NewServeMux()
	for verb, h := range verbs {
		mux.HandleFunc("POST /v1/"+verb, func(w http.ResponseWriter, r *http.Request) {
			s.answer(w, r, verb, h)
		})
	}
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			log.Error("control socket", "err", err)
		}
	}()
	return s
}

// Close stops listening, cancels the work under way, waits for its answers to be sent (until ctx
// ends) and joins.
func (s *Server) Close(ctx context.Context) error {
	s.cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.done
	return err
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, verb string, h Handler) {
	// The whole body first: only then does net/http watch the connection for its end.
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := &lines{enc: json.NewEncoder(w), flush: http.NewResponseController(w).Flush}
	start := time.Now()
	result, err := h(r.Context(), raw, out.progress)
	s.log.Debug("control", "verb", verb, "took", time.Since(start), "err", err)
	if err != nil {
		out.send(line{Error: ToWire(err, s.classify)})
		return
	}
	text, err := json.Marshal(result)
	if err != nil {
		out.send(line{Error: ToWire(fmt.Errorf("%s: encode answer: %w", verb, err), s.classify)})
		return
	}
	out.send(line{Result: text})
}

// lines writes an answer. Progress may come from several goroutines of the work.
type lines struct {
	mu    sync.Mutex
	enc   *json.Encoder
	flush func() error

	stage string
	last  time.Time
	ended bool
}

func (l *lines) progress(p Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	complete := p.Total > 0 && p.Done >= p.Total
	if l.ended || p.Stage == l.stage && !complete && time.Since(l.last) < progressInterval {
		return
	}
	l.stage, l.last = p.Stage, time.Now()
	l.write(line{Progress: &p})
}

func (l *lines) send(v line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.write(v)
}

// write ignores errors: a client that is gone ends the request's context by itself.
func (l *lines) write(v line) {
	if l.enc.Encode(v) == nil {
		_ = l.flush()
	}
}
