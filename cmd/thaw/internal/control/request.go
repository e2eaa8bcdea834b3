package control

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"regexp"
)

// requestHeader has the ID of the command that asks.
const requestHeader = "Thaw-Request"

// requestID is what a server takes for an ID: it goes into its log.
var requestID = regexp.MustCompile(`^[0-9a-z-]{1,64}$`)

type requestKey struct{}

// NewRequest makes an ID for one run of a command: what it says, and what servers log of its requests, has
// the same one.
func NewRequest() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return hex.EncodeToString(b[:])
}

// WithRequest gives a context the ID of the command that works in it.
func WithRequest(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, id)
}

// Request is the ID that a context has; "": none.
func Request(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
}

// A RequestError is an error that a server has answered with. Its log has more about it, under the ID.
type RequestError struct {
	Request string
	Err     error
}

func (e *RequestError) Error() string { return e.Err.Error() }
func (e *RequestError) Unwrap() error { return e.Err }
