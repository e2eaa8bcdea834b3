package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// httpServer is a listener of a server over TCP, which serves what it is asked for on request: metrics, or
// metrics and profiles. Whoever can reach the address can read them.
type httpServer struct {
	name string // of its listener, for the next server
	on   net.Listener
	http *http.Server
	done chan struct{}
}

// startListeners listens where it is asked to. metrics are those of the mount; those of the process are
// added. After an error nothing listens.
func (s *Server) startListeners(metrics prometheus.Gatherer) error {
	if s.MetricsListen != "" {
		h, at, err := listenHTTP(s.Options, metricsFile, s.MetricsListen, metricsMux(s.Log, metrics))
		if err != nil {
			return fmt.Errorf("--metrics-listen: %w", err)
		}
		s.http = append(s.http, h)
		s.Note("thaw: metrics on http://%s/metrics", at)
	}
	if s.DebugListen != "" {
		mux := metricsMux(s.Log, metrics)
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
		h, at, err := listenHTTP(s.Options, debugFile, s.DebugListen, mux)
		if err != nil {
			return fmt.Errorf("--debug-listen: %w", err)
		}
		s.http = append(s.http, h)
		s.Note("thaw: metrics on http://%[1]s/metrics, profiles on http://%[1]s/debug/pprof/", at)
	}
	return nil
}

func metricsMux(log *slog.Logger, metrics prometheus.Gatherer) *http.ServeMux {
	process := prometheus.NewRegistry()
	process.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{metrics, process},
		promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError)}))
	return mux
}

func listenHTTP(o Options, name, address string, mux *http.ServeMux) (*httpServer, net.Addr, error) {
	l, err := listenTCP(o.Given[name], address)
	if err != nil {
		return nil, nil, err
	}
	h := &httpServer{
		name: name, on: l,
		http: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second},
		done: make(chan struct{}),
	}
	go func() {
		defer close(h.done)
		if err := h.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			o.Log.Error("serve metrics", "address", address, "err", err)
		}
	}()
	return h, l.Addr(), nil
}

// listenTCP listens on an address, or goes on with the listener of the server before.
func listenTCP(given *os.File, address string) (net.Listener, error) {
	if given != nil {
		return net.FileListener(given)
	}
	return net.Listen("tcp", address)
}

func (h *httpServer) close() error {
	err := h.http.Close()
	<-h.done
	return err
}
