package server

import (
	"context"
	"os/signal"
	"syscall"
	"testing"
)

// TestOneSignalIsOne: the signal that ends the context is not among those that come afterwards. Counted
// twice, one SIGTERM would cut off the machines of a mount in use.
func TestOneSignalIsOne(t *testing.T) {
	for range 2000 {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		again, end := nextSignals()
		end() // returns when every signal that has come is delivered
		if len(again) != 0 {
			t.Fatalf("%v counts as another signal", <-again)
		}
		stop()
	}
}
