package vmm

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// A restore that fails while its memory is being opened, which may take long, says so at once; one that fails
// afterwards says it once.
func TestAbandon(t *testing.T) {
	why := errors.New("this host cannot run it")
	for _, late := range []bool{false, true} {
		o := &opening{done: make(chan struct{})}
		said := make(firstLine, 1)
		log := slog.New(slog.NewTextHandler(said, nil))
		if late {
			close(o.done)
		} else {
			go func() {
				line := <-said // before the memory is open
				said <- line
				close(o.done)
			}()
		}
		if err := o.abandon(why, log); !errors.Is(err, why) {
			t.Errorf("late %v: %v", late, err)
		}
		if got := len(said) == 1 && strings.Contains(<-said, why.Error()); got == late {
			t.Errorf("late %v: it was said: %v", late, got)
		}
	}
}

// A firstLine takes what is written, once.
type firstLine chan string

func (w firstLine) Write(p []byte) (int, error) {
	w <- string(bytes.Clone(p))
	return len(p), nil
}
