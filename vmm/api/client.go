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

// Client speaks to the machine behind a socket.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client. It does not connect yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{DialContext: dial,
		DisableKeepAlives: true}}}
}

// RefusedError is what the machine answered instead of doing it.
type RefusedError struct {
	Code int // HTTP status
	What string
}

func (e *RefusedError) Error() string { return e.What }

// Status asks what the machine is doing.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodGet, "status", nil, &s)
}

// Metrics asks for the machine's counters.
func (c *Client) Metrics(ctx context.Context) (m Metrics, err error) {
	return m, c.call(ctx, http.MethodGet, "metrics", nil, &m)
}

// Pause stops the vCPUs.
func (c *Client) Pause(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodPost, "pause", nil, &s)
}

// Resume lets them go on.
func (c *Client) Resume(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodPost, "resume", nil, &s)
}

// Stop ends the machine.
func (c *Client) Stop(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodPost, "stop", nil, &s)
}

// Checkpoint writes the machine into a directory, as seen by the machine's process; a relative path
// is taken from this process.
func (c *Client) Checkpoint(ctx context.Context, r CheckpointRequest) (rep CheckpointReply,
	err error) {
	if r.Dir, err = filepath.Abs(r.Dir); err != nil {
		return rep, err
	}
	return rep, c.call(ctx, http.MethodPost, "checkpoint", r, &rep)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://vm/"+path, &body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("machine at %s: %w", c.socket, err)
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	if resp.StatusCode != http.StatusOK {
		f := failure{Message: resp.Status}
		_ = d.Decode(&f) // without JSON the message is the status line
		return fmt.Errorf("machine at %s: %w", c.socket, &RefusedError{resp.StatusCode, f.Message})
	}
	if err := d.Decode(out); err != nil {
		return fmt.Errorf("machine at %s: %w", c.socket, err)
	}
	return nil
}
