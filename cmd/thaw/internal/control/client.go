package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// Client calls the server behind one control socket. It holds no connection between calls.
type Client struct {
	path  string
	limit limits
	http  *http.Client
}

// limits are how long a server may take. Its verbs are short: the commands do longer work themselves.
type limits struct {
	begin time.Duration // an answer: the server begins it before it does the work
	end   time.Duration // an answer
}

// ErrSilent: the server does not answer in time, because it is stopped or hangs.
var ErrSilent = errors.New("the server does not answer")

// Connect makes sure that a server listens at path; ErrNoServer where none does.
func Connect(ctx context.Context, path string) (*Client, error) {
	return connect(ctx, path, limits{begin: 5 * time.Second, end: 15 * time.Second})
}

func connect(ctx context.Context, path string, l limits) (*Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.begin, ErrSilent)
	defer cancel()
	conn, err := Dial(ctx, path)
	if err != nil && context.Cause(ctx) == ErrSilent {
		return nil, ErrSilent
	}
	if err != nil {
		return nil, err
	}
	conn.Close()
	return &Client{path: path, limit: l, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives:     true,
		ResponseHeaderTimeout: l.begin,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return Dial(ctx, path)
		},
	}}}, nil
}

// Call asks the server for one verb. result (a pointer, or nil) takes the answer. When ctx ends,
// so does the work, and Call returns ctx's error; a server that does not answer in time is ErrSilent.
func (c *Client) Call(ctx context.Context, verb string, req, result any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.limit.end, ErrSilent)
	defer cancel()
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
	if id := Request(ctx); id != "" {
		r.Header.Set(requestHeader, id)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return c.broken(ctx, verb, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return exitcode.Errorf(exitcode.Version,
			"the server at %s does not know %q: it is of another version", c.path, verb)
	}
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return c.broken(ctx, verb, err)
	}
	if a.Error != nil {
		return &RequestError{a.Request, a.Error.Err()}
	}
	if result == nil || len(a.Result) == 0 {
		return nil
	}
	if err := json.Unmarshal(a.Result, result); err != nil {
		return fmt.Errorf("%s: answer of the server: %w", verb, err)
	}
	return nil
}

// StoppedHint says what to do about the server of a mount that does not answer. The harmless way comes first.
func StoppedHint(mnt string) string {
	return "is its process stopped? kill -CONT wakes it; " + GiveUpHint(mnt)
}

// GiveUpHint says how a mount is given up, and what that costs.
func GiveUpHint(mnt string) string {
	return "to give the mount up, and all machines that run from it: thaw umount --abort " + mnt
}

// broken explains a connection that ended before the answer did.
func (c *Client) broken(ctx context.Context, verb string, err error) error {
	var late net.Error
	switch {
	case ctx.Err() != nil && context.Cause(ctx) != ErrSilent:
		return ctx.Err()
	case errors.Is(err, ErrNoServer):
		return err
	case ctx.Err() != nil, errors.As(err, &late) && late.Timeout():
		return exitcode.WithHint(exitcode.ServerGone, fmt.Errorf("%s: %w", verb, ErrSilent),
			StoppedHint("MNT"))
	}
	return exitcode.WithHint(exitcode.ServerGone,
		fmt.Errorf("%s: the server died before it answered: %w", verb, err), "mount the store again")
}
