package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
)

// Client sends requests to a machine through its socket.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client for the path of a socket. It connects with the first request.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{DialContext: dial,
		DisableKeepAlives: true}}}
}

// RefusedError is the error that the machine has answered.
type RefusedError struct {
	Code int // HTTP status
	What string
}

func (e *RefusedError) Error() string { return e.What }

// Status returns what the machine is doing.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "status", nil)
}

// Metrics returns the machine's counters.
func (c *Client) Metrics(ctx context.Context) (Metrics, error) {
	return call[Metrics](ctx, c, http.MethodGet, "metrics", nil)
}

// Pause stops the vCPUs.
func (c *Client) Pause(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodPost, "pause", nil)
}

// Resume starts the vCPUs.
func (c *Client) Resume(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodPost, "resume", nil)
}

// Stop ends the machine.
func (c *Client) Stop(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodPost, "stop", nil)
}

// Checkpoint writes the machine into a directory. The machine's process opens its path; a relative path
// is made absolute in this process.
func (c *Client) Checkpoint(ctx context.Context, r CheckpointRequest) (CheckpointReply, error) {
	dir, err := filepath.Abs(r.Dir)
	if err != nil {
		return CheckpointReply{}, err
	}
	r.Dir = dir
	return call[CheckpointReply](ctx, c, http.MethodPost, "checkpoint", r)
}

func call[T any](ctx context.Context, c *Client, method, path string, in any) (out T, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("machine at %s: %w", c.socket, err)
		}
	}()
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return out, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://vm/"+path, &body)
	if err != nil {
		return out, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	if resp.StatusCode != http.StatusOK {
		f := failure{Message: resp.Status}
		_ = d.Decode(&f) // without valid JSON the message is the status line
		return out, &RefusedError{resp.StatusCode, f.Message}
	}
	err = d.Decode(&out)
	return out, err
}
