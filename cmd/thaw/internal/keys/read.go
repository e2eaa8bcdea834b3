package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// readFile reads a key file.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // the open of a pipe must not wait for a writer
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && st.IsDir() {
		err = fmt.Errorf("%s is a directory", path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxText))
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	return b, nil
}

// commandPatience is how long a command may take to print a key: it may ask somebody.
const commandPatience = 2 * time.Minute

// limited keeps the first bytes of what is written to it.
type limited struct{ b []byte }

func (l *limited) Write(p []byte) (int, error) {
	l.b = append(l.b, p[:min(len(p), maxText-len(l.b))]...)
	return len(p), nil
}

// readCommand runs a command of the shell that prints a key. What it says on stderr is for the user.
func readCommand(ctx context.Context, command string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, commandPatience,
		fmt.Errorf("it has printed no key in %v", commandPatience))
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	var out limited
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	cmd.WaitDelay = time.Second // for what it has started and left behind
	err := cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil && len(bytes.TrimSpace(out.b)) == 0 {
		err = errors.New("it printed nothing")
	}
	if err != nil {
		return nil, fmt.Errorf("get the key by %q: %w", command, err)
	}
	return out.b, nil
}

// readKeyring reads a key of type "user" from the keyrings of the session, or of the user.
func readKeyring(name string) ([]byte, error) {
	id, err := 0, error(nil)
	for _, ring := range []int{
		unix.KEY_SPEC_SESSION_KEYRING, unix.KEY_SPEC_USER_SESSION_KEYRING, unix.KEY_SPEC_USER_KEYRING,
	} {
		if id, err = unix.KeyctlSearch(ring, "user", name, 0); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("find the key %q in a keyring: %w (keyctl show lists them)", name, err)
	}
	b := make([]byte, maxText)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, b, 0)
	if err != nil {
		return nil, fmt.Errorf("read the key %q of a keyring: %w", name, err)
	}
	return b[:min(n, len(b))], nil
}
