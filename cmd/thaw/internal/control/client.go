package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// Client calls the server behind one control socket. It holds no connection between calls.
type Client struct {
	path string
	http *http.Client
}

// Connect makes sure that a server listens at path; ErrNoServer where none does.
func Connect(ctx context.Context, path string) (*Client, error) {
	conn, err := Dial(ctx, path)
	if err != nil {
		return nil, err
	}
	conn.Close()
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return Dial(ctx, path)
		},
	}}}, nil
}

// Path of the socket.
func (c *Client) Path() string { return c.path }

// Call asks the server for one verb. result (a pointer, or nil) takes what it answers, progress
// (may be nil) what it reports meanwhile, in the caller's goroutine. When ctx ends, so does the
// work, and Call returns ctx's error.
func (c *Client) Call(ctx context.Context, verb string, req, result any,
	progress func(Progress)) error {
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://thaw/v1/"+verb,
		bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(r)
	if err != nil {
		return c.broken(ctx, verb, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return exitcode.Errorf(exitcode.Version,
			"the server at %s does not know %q: it is of another version", c.path, verb)
	}
	return c.read(ctx, verb, resp.Body, result, progress)
}

// read follows an answer to its end.
func (c *Client) read(ctx context.Context, verb string, body io.Reader, result any,
	progress func(Progress)) error {
	dec := json.NewDecoder(body)
	for {
		var l line
		if err := dec.Decode(&l); err != nil {
			return c.broken(ctx, verb, err)
		}
		switch {
		case l.Progress != nil:
			if progress != nil {
				progress(*l.Progress)
			}
		case l.Error != nil:
			return l.Error.Err()
		default:
			if result == nil || len(l.Result) == 0 {
				return nil
			}
			if err := json.Unmarshal(l.Result, result); err != nil {
				return fmt.Errorf("%s: answer of the server: %w", verb, err)
			}
			return nil
		}
	}
}

// broken explains a connection that ended before the answer did.
func (c *Client) broken(ctx context.Context, verb string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, ErrNoServer) {
		return err
	}
	return exitcode.WithHint(exitcode.ServerGone,
		fmt.Errorf("%s: the server died before it answered: %w", verb, err),
		"run the command again: it then works on the store directly")
}
