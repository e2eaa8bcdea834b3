package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// debugServer serves metrics and profiles of a server over TCP, on request.
type debugServer struct {
	http *http.Server
	done chan struct{}
}

// startDebug listens where it is asked to; nil where it is not. metrics are those of the mount; those
// of the process are added.
func startDebug(o Options, metrics prometheus.Gatherer) (*debugServer, error) {
	if o.DebugListen == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", o.DebugListen)
	if err != nil {
		return nil, fmt.Errorf("--debug-listen: %w", err)
	}
	mux := http.NewServeMux()
	process := prometheus.NewRegistry()
	process.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{metrics, process},
		promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelError)}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	d := &debugServer{
		http: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second},
		done: make(chan struct{}),
	}
	go func() {
		defer close(d.done)
		if err := d.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			o.Log.Error("debug server", "err", err)
		}
	}()
	o.Note("thaw: metrics on http://%[1]s/metrics, profiles on http://%[1]s/debug/pprof/", l.Addr())
	return d, nil
}

func (d *debugServer) close() error {
	err := d.http.Close()
	<-d.done
	return err
}
