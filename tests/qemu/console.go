package qemu

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	qmp "github.com/thawfs/thaw/wss/qemu"
)

// Tick is one line of progress of the workload.
type Tick struct {
	Round  int
	Uptime float64   // seconds, the guest's own clock
	Bad    int       // checks that failed since the guest has booted
	At     time.Time // when the host read the line
}

// Console gathers what the guest prints.
type Console struct {
	file *os.File
	done chan struct{} // closed when the reader has ended

	mu     sync.Mutex
	lines  []string      // guarded by mu
	at     []time.Time   // guarded by mu; one for each line
	change chan struct{} // guarded by mu; closed and replaced at every line
	ended  bool          // guarded by mu
}

func newConsole(f *os.File, log io.Writer) *Console {
	c := &Console{file: f, done: make(chan struct{}), change: make(chan struct{})}
	go c.read(log)
	return c
}

func (c *Console) read(log io.Writer) {
	defer close(c.done)
	in := bufio.NewScanner(c.file)
	in.Buffer(make([]byte, 64<<10), 1<<20)
	for in.Scan() {
		line := strings.TrimRight(in.Text(), "\r")
		fmt.Fprintln(log, line)
		c.mu.Lock()
		c.lines, c.at = append(c.lines, line), append(c.at, time.Now())
		close(c.change)
		c.change = make(chan struct{})
		c.mu.Unlock()
	}
	c.mu.Lock()
	c.ended = true
	close(c.change)
	c.change = make(chan struct{})
	c.mu.Unlock()
}

// close is called when the process is gone, so the reader gets the end of the file by itself. The
// deadline is for a descendant that still holds the pipe.
func (c *Console) close() {
	_ = c.file.SetReadDeadline(time.Now().Add(2 * time.Second))
	<-c.done
	c.file.Close()
}

// Text is everything printed so far.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.lines, "\n")
}

// Lines is how many lines were printed so far: a position for the waiting methods.
func (c *Console) Lines() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.lines)
}

// wait calls match for each line from position from on, until it returns true.
func (c *Console) wait(ctx context.Context, from int, what string,
	match func(line string, at time.Time) bool) error {
	for {
		c.mu.Lock()
		for ; from < len(c.lines); from++ {
			if match(c.lines[from], c.at[from]) {
				c.mu.Unlock()
				return nil
			}
		}
		change, ended := c.change, c.ended
		c.mu.Unlock()
		if ended {
			return fmt.Errorf("waiting for %s: %w; console:\n%s", what, qmp.ErrGone, c.Text())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; console:\n%s", what, context.Cause(ctx), c.Text())
		case <-change:
		}
	}
}

// WaitTicks waits for n lines of progress after position from and returns them.
func (c *Console) WaitTicks(ctx context.Context, from, n int) ([]Tick, error) {
	var ticks []Tick
	err := c.wait(ctx, from, fmt.Sprintf("%d ticks", n), func(line string, at time.Time) bool {
		if t, ok := parseTick(line, at); ok {
			ticks = append(ticks, t)
		}
		return len(ticks) == n
	})
	return ticks, err
}

// Ticks are all lines of progress so far.
func (c *Console) Ticks() []Tick {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ticks []Tick
	for i, line := range c.lines {
		if t, ok := parseTick(line, c.at[i]); ok {
			ticks = append(ticks, t)
		}
	}
	return ticks
}

func parseTick(line string, at time.Time) (Tick, bool) {
	t := Tick{At: at}
	_, err := fmt.Sscanf(line, "tick n=%d uptime=%f bad=%d", &t.Round, &t.Uptime, &t.Bad)
	return t, err == nil
}

// WaitAll waits for the answer to the command `all` after position from.
func (c *Console) WaitAll(ctx context.Context, from int) (bad, files int, err error) {
	err = c.wait(ctx, from, "the check of all files", func(line string, _ time.Time) bool {
		_, err := fmt.Sscanf(line, "all bad=%d files=%d", &bad, &files)
		return err == nil
	})
	return bad, files, err
}
