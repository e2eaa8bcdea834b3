package keys

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index/seal"
)

func TestGet(t *testing.T) {
	dir := t.TempDir()
	k := seal.NewKey()
	file := filepath.Join(dir, "key")
	if err := os.WriteFile(file, k.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		s    *Source
		want exitcode.Code // OK: it gets the key
	}{
		"file":          {&Source{File: file}, exitcode.OK},
		"command":       {&Source{Command: "cat " + file}, exitcode.OK},
		"missing":       {&Source{File: file + "x"}, exitcode.Key},
		"directory":     {&Source{File: dir}, exitcode.Key},
		"pipe":          {&Source{File: pipe}, exitcode.Key}, // nobody writes into it
		"endless":       {&Source{File: "/dev/zero"}, exitcode.Key},
		"much output":   {&Source{Command: "head -c 10000000 /dev/zero"}, exitcode.Key},
		"no output":     {&Source{Command: "true"}, exitcode.Key},
		"failure":       {&Source{Command: "cat " + file + "; exit 3"}, exitcode.Key},
		"no key there":  {&Source{Keyring: "thaw-test-no-such-key"}, exitcode.Key},
		"two":           {&Source{File: file, Command: "true"}, exitcode.Usage},
		"three of them": {&Source{File: file, Command: "true", Keyring: "x"}, exitcode.Usage},
	} {
		got, err := c.s.Get(t.Context())
		code, _, _ := exitcode.Of(err)
		if c.want == exitcode.OK && (err != nil || *got != k) {
			t.Errorf("%s: %v", name, err)
		}
		if c.want != exitcode.OK && (got != nil || code != c.want) {
			t.Errorf("%s: %v (%v)", name, err, code)
		}
		if err != nil && strings.Contains(err.Error(), strings.TrimSpace(string(k.Text()))) {
			t.Errorf("%s: the error has the key", name)
		}
	}
}

// A command is run once, and ends with the user's patience.
func TestCommand(t *testing.T) {
	count := filepath.Join(t.TempDir(), "count")
	s := &Source{Command: "echo x >>" + count + "; printf %064d 7"}
	for range 3 {
		if _, err := s.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(count); string(b) != "x\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&Source{Command: "sleep 100"}).Get(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Flags come before the environment, and another process is told where the key is.
func TestFlags(t *testing.T) {
	k, other := seal.NewKey(), seal.NewKey()
	dir := t.TempDir()
	t.Chdir(dir)
	for name, k := range map[string]seal.Key{"key": k, "other": other} {
		if err := os.WriteFile(name, k.Text(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(EnvFile, "other")
	parse := func(args ...string) *Source {
		s := new(Source)
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		s.AddFlags(f, "", "a key")
		if err := f.Parse(args); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		args  []string
		want  seal.Key
		given bool
		child string
	}{
		{nil, other, false, "--key-file=" + filepath.Join(dir, "other")},
		{[]string{"--key-file", "key"}, k, true, "--key-file=" + filepath.Join(dir, "key")},
		{[]string{"--key-command", "cat key"}, k, true, "--key-command=cat key"},
	} {
		s := parse(c.args...)
		got, err := s.Get(t.Context())
		if err != nil || *got != c.want || s.Given() != c.given || !slices.Equal(s.Args(), []string{c.child}) {
			t.Errorf("%v: %v, %v, %v", c.args, err, s.Given(), s.Args())
		}
	}
	t.Setenv(EnvFile, "")
	if got, err := parse().Get(t.Context()); got != nil || err != nil || len(parse().Args()) > 0 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := parse().Must(t.Context(), "a flag"); !exitcode.Has(err, exitcode.Usage) {
		t.Error(err)
	}
}

func TestKeyring(t *testing.T) {
	k := seal.NewKey()
	name := "thaw-test-" + k.ID()
	id, err := unix.AddKey("user", name, k.Text(), unix.KEY_SPEC_SESSION_KEYRING)
	if err != nil {
		t.Skipf("this host has no keyring for it: %v", err)
	}
	defer unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_SESSION_KEYRING, 0, 0)
	got, err := (&Source{Keyring: name}).Get(t.Context())
	if err != nil || *got != k {
		t.Error(err)
	}
}
