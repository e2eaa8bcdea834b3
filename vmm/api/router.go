package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// maxBody bounds what a client may send, in bytes.
const maxBody = 1 << 16

// router maps requests to actions of the machine.
type router struct {
	m     Machine
	log   *slog.Logger
	paths map[string]map[string]action // path -> method -> what to do
}

// action answers a request with a value, or with an error: a *badRequest or an error of the machine.
type action func(r *http.Request) (any, error)

// badRequest is an error of the client.
type badRequest struct{ what string }

func (e *badRequest) Error() string { return e.what }

func newRouter(m Machine, log *slog.Logger) *router {
	rt := &router{m: m, log: log}
	get := func(a action) map[string]action { return map[string]action{http.MethodGet: a} }
	// Requests that change something. Firecracker's clients PUT, curl's users POST.
	act := func(a action) map[string]action {
		return map[string]action{http.MethodPost: a, http.MethodPut: a}
	}
	rt.paths = map[string]map[string]action{
		"/": get(version), "/version": get(version),
		"/status":  get(func(*http.Request) (any, error) { return m.Status() }),
		"/metrics": get(func(*http.Request) (any, error) { return m.Metrics() }),
		"/pause":   act(rt.then(m.Pause)), "/resume": act(rt.then(m.Resume)),
		"/stop":       act(rt.then(func() error { m.Stop(); return nil })),
		"/checkpoint": act(rt.checkpoint),
	}
	return rt
}

// then returns an action that calls act and answers with the status.
func (rt *router) then(act func() error) action {
	return func(*http.Request) (any, error) {
		if err := act(); err != nil {
			return nil, err
		}
		return rt.m.Status()
	}
}

// ServeHTTP implements http.Handler.
func (rt *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	methods, ok := rt.paths[r.URL.Path]
	if !ok {
		fail(w, http.StatusNotFound, "there is no "+r.URL.Path)
		return
	}
	act, ok := methods[r.Method]
	if !ok {
		allow := strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
		w.Header().Set("Allow", allow)
		fail(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s %s: it takes %s", r.Method, r.URL.Path,
			allow))
		return
	}
	v, err := act(r)
	if err != nil {
		rt.log.Warn("API request failed", "request", r.URL.Path, "err", err)
		fail(w, rt.code(err), err.Error())
		return
	}
	reply(w, http.StatusOK, v)
}

// code returns the HTTP status for an error.
func (rt *router) code(err error) int {
	if _, ok := err.(*badRequest); ok {
		return http.StatusBadRequest
	}
	switch rt.m.Kind(err) {
	case Conflict:
		return http.StatusConflict
	case NoSpace:
		return http.StatusInsufficientStorage
	}
	return http.StatusInternalServerError
}

func fail(w http.ResponseWriter, code int, message string) { reply(w, code, failure{message}) }

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // fails only if the client is gone
}

func (rt *router) checkpoint(r *http.Request) (any, error) {
	var req CheckpointRequest
	d := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		return nil, &badRequest{"the request cannot be decoded: " + err.Error()}
	}
	if !filepath.IsAbs(req.Dir) {
		return nil, &badRequest{fmt.Sprintf("dir %q must be an absolute path", req.Dir)}
	}
	// Without the request's cancellation: a client that disconnects does not stop a checkpoint.
	return rt.m.Checkpoint(context.WithoutCancel(r.Context()), req)
}

func version(*http.Request) (any, error) {
	v := Version{Name: "thaw", API: APIVersion, Version: "devel"}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	return v, nil
}
