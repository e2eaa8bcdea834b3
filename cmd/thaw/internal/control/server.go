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
	"runtime/debug"
	"time"
)

// maxRequest bounds a request's body.
const maxRequest = 1 << 20

// Handler executes one verb. ctx ends when the client disconnects or the server closes.
type Handler func(ctx context.Context, req json.RawMessage) (any, error)

// Handle makes a Handler of a function that takes its request decoded.
func Handle[Req any](f func(ctx context.Context, req Req) (any, error)) Handler {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var req Req
		if err := json.Unmarshal(raw, &req); err != nil {
			return nil, fmt.Errorf("request: %w", err)
		}
		return f(ctx, req)
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
	// The head of the answer shows at once that the server is alive.
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush() // a client that is gone ends the context by itself
	id := r.Header.Get(requestHeader)
	if !requestID.MatchString(id) {
		id = NewRequest()
	}
	log := s.log.With("request", id, "verb", verb)
	start := time.Now()
	result, err := s.do(WithRequest(r.Context(), id), log, h, raw)
	a := answer{Request: id}
	if err == nil {
		a.Result, err = json.Marshal(result)
	}
	switch took := time.Since(start); {
	case err == nil:
		log.Debug("a command asked for something", "took", took)
	case errors.Is(err, context.Canceled):
		log.Debug("a command went away", "took", took)
	default:
		log.Warn("what a command asked for could not be done", "took", took, "err", err)
	}
	if err != nil {
		a.Error = ToWire(err, s.classify)
	}
	_ = json.NewEncoder(w).Encode(a)
}

// do runs a handler. A panic in it is an error of this one request: machines run from this process.
func (s *Server) do(ctx context.Context, log *slog.Logger, h Handler, raw json.RawMessage) (
	result any, err error,
) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("a request ended in a panic", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("the server failed: %v", p)
		}
	}()
	return h(ctx, raw)
}
