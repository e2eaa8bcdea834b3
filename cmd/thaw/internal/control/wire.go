package control

import (
	"encoding/json"
	"errors"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// answer is the answer of a server: a result or an error.
type answer struct {
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *WireError      `json:"error,omitempty"`
	Request string          `json:"request,omitempty"` // the ID that the server's log has
}

// WireError is an error as it crosses a process boundary: the name of its exit code, its message,
// what to do about it.
type WireError struct {
	Name    string `json:"name"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Classify gives an error its exit code and its hint. The command line has one table for that.
type Classify func(error) (exitcode.Code, string)

// ToWire makes an error fit for the wire.
func ToWire(err error, classify Classify) *WireError {
	code, hint := classify(err)
	return &WireError{Name: code.Name(), Message: err.Error(), Hint: hint}
}

// Err is the error again, with its exit code.
func (w *WireError) Err() error {
	return exitcode.WithHint(exitcode.ByName(w.Name), errors.New(w.Message), w.Hint)
}
