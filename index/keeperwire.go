package index

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
)

// A question is the name of a method and its argument; an answer is a verdict and, if that is good, the
// result. All are values of package gob, one after another. (net/rpc does the same, and brings html/template
// into every program that serves a mount.)

// answers are what a keeper can be asked: its methods, which keptKeys calls.
type answers interface {
	Version(_ int, version *string) error
	Open(at indexPlace, _ *int) error
	Pages(keys []byte, refs *[]byte) error
	Get(key []byte, value *[]byte) error
	Update(rows []string, _ *int) error
	Scan(from []byte, rows *[]string) error
	Close(_ int, _ *int) error
}

// A method reads its argument and answers.
type method func(in *gob.Decoder) (result any, err error)

func methodsOf(k answers) map[string]method {
	return map[string]method{
		"Version": methodOf(k.Version), "Open": methodOf(k.Open), "Pages": methodOf(k.Pages),
		"Get": methodOf(k.Get), "Update": methodOf(k.Update), "Scan": methodOf(k.Scan),
		"Close": methodOf(k.Close),
	}
}

func methodOf[Q, A any](fn func(Q, *A) error) method {
	return func(in *gob.Decoder) (any, error) {
		var question Q
		if err := in.Decode(&question); err != nil {
			return nil, fmt.Errorf("%w: %w", errQuestion, err)
		}
		answer := new(A)
		return answer, fn(question, answer)
	}
}

// errQuestion marks what no command asks: the keeper ends.
var errQuestion = errors.New("keeper: bad question")

// verdict is how a question went.
type verdict struct {
	Failed bool
	Error  string
}

// serveKeeper answers questions on stdin until there are no more.
func serveKeeper(methods map[string]method) error {
	in, out := gob.NewDecoder(keeperInput{}), gob.NewEncoder(os.Stdout)
	for {
		name := ""
		if err := in.Decode(&name); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%w: %w", errQuestion, err)
		}
		m := methods[name]
		if m == nil {
			return fmt.Errorf("%w: %.40q", errQuestion, name)
		}
		result, err := m(in)
		if errors.Is(err, errQuestion) {
			return err
		}
		v := verdict{Failed: err != nil}
		if err != nil {
			v.Error = err.Error()
		}
		if err := out.Encode(v); err != nil {
			return err
		}
		if !v.Failed {
			if err := out.Encode(result); err != nil {
				return err
			}
		}
	}
}

// An answeredError is one that the keeper gave as its answer. It goes on.
type answeredError string

func (e answeredError) Error() string { return string(e) }

// caller asks a keeper, one question at a time.
type caller struct {
	out *gob.Encoder
	in  *gob.Decoder
}

func newCaller(in io.Reader, out io.Writer) *caller {
	return &caller{gob.NewEncoder(out), gob.NewDecoder(in)}
}

func (c *caller) call(name string, question, result any) error {
	if err := c.out.Encode(name); err != nil {
		return err
	}
	if err := c.out.Encode(question); err != nil {
		return err
	}
	var v verdict
	if err := c.in.Decode(&v); err != nil {
		return err
	}
	if v.Failed {
		return answeredError(v.Error)
	}
	return c.in.Decode(result)
}
