package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/spf13/pflag"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index/seal"
)

// Source says where a key is. One of its fields is set, or none.
type Source struct {
	File    string
	Command string // of the shell
	Keyring string // the description of a key of type "user"

	mu  sync.Mutex
	got *seal.Key // what Get got; guarded by mu
}

// Environment variables that say where the key is, if no flag does.
const (
	EnvFile    = "THAW_KEY_FILE"
	EnvCommand = "THAW_KEY_COMMAND"
	EnvKeyring = "THAW_KEY_KEYRING"
)

// AddFlags adds the flags of a key; prefix is what their names begin with, what says which key it is.
func (s *Source) AddFlags(f *pflag.FlagSet, prefix, what string) {
	f.StringVar(&s.File, prefix+"key-file", "", "`file` with "+what)
	f.StringVar(&s.Command, prefix+"key-command", "", "shell `command` that prints "+what)
	f.StringVar(&s.Keyring, prefix+"key-keyring", "", "`name` of "+what+" in a keyring of the kernel")
}

// Given says whether flags say where the key is.
func (s *Source) Given() bool { return s.File != "" || s.Command != "" || s.Keyring != "" }

// Args are the flags for another process that is to get the same key, which may run in another directory.
func (s *Source) Args() (args []string) {
	from := s.from()
	for _, f := range []struct{ name, value string }{
		{"file", absolute(from.File)}, {"command", from.Command}, {"keyring", from.Keyring},
	} {
		if f.value != "" {
			args = append(args, "--key-"+f.name+"="+f.value)
		}
	}
	return args
}

// absolute is a path from everywhere.
func absolute(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// from is where the key is: where flags say, or else the environment.
func (s *Source) from() *Source {
	if s.Given() {
		return s
	}
	return &Source{
		File: os.Getenv(EnvFile), Command: os.Getenv(EnvCommand), Keyring: os.Getenv(EnvKeyring),
	}
}

// Get returns the key; nil if neither flags nor environment say where one is. It gets it once.
func (s *Source) Get(ctx context.Context) (*seal.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.got != nil {
		return s.got, nil
	}
	from := s.from()
	b, err := from.read(ctx)
	if _, _, coded := exitcode.Of(err); err != nil && !coded {
		err = exitcode.WithHint(exitcode.Key, err, "nothing was read or changed")
	}
	if err != nil || b == nil {
		return nil, err
	}
	key, err := seal.ParseKey(b)
	clear(b)
	if err != nil {
		return nil, exitcode.With(exitcode.Key, fmt.Errorf("%s: %w", from.where(), err))
	}
	s.got = &key
	return s.got, nil
}

// Must is Get where there must be one.
func (s *Source) Must(ctx context.Context, flags string) (seal.Key, error) {
	key, err := s.Get(ctx)
	if err == nil && key == nil {
		err = exitcode.Errorf(exitcode.Usage, "which key? Give %s", flags)
	}
	if err != nil {
		return seal.Key{}, err
	}
	return *key, nil
}

// where says where the key is, for messages.
func (s *Source) where() string { return cmp.Or(s.File, s.Command, s.Keyring) }

var errTwo = errors.New("one key is given in several ways: give a file, a command, or the name in a keyring")

// maxText bounds what is read of a key, in bytes.
const maxText = 4096

// read reads the bytes of the key; nil if it is not said where it is.
func (s *Source) read(ctx context.Context) ([]byte, error) {
	n := 0
	for _, set := range []bool{s.File != "", s.Command != "", s.Keyring != ""} {
		if set {
			n++
		}
	}
	switch {
	case n == 0:
		return nil, nil
	case n > 1:
		return nil, exitcode.With(exitcode.Usage, errTwo)
	case s.File != "":
		return readFile(s.File)
	case s.Command != "":
		return readCommand(ctx, s.Command)
	}
	return readKeyring(s.Keyring)
}
