package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// fakeQEMU answers each command with the lines that its script gives for it.
func fakeQEMU(t *testing.T, script map[string]string) net.Conn {
	return serveQMP(t, func(line string) string {
		for command, lines := range script {
			if strings.Contains(line, `"`+command+`"`) {
				return lines
			}
		}
		return `{"return": {}}`
	})
}

// serveQMP gives the end of a connection whose other end greets and then answers each line; an
// empty answer ends it.
func serveQMP(t *testing.T, answer func(line string) string) net.Conn {
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close()
		fmt.Fprintln(theirs, `{"QMP": {"version": {}}}`)
		for in := bufio.NewScanner(theirs); in.Scan(); {
			text := answer(in.Text())
			if text == "" {
				return
			}
			fmt.Fprintln(theirs, text)
		}
	}()
	t.Cleanup(func() { ours.Close(); <-done })
	return ours
}

func TestQMP(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	q, err := NewQMP(ctx, fakeQEMU(t, map[string]string{
		"query-status": `{"event": "STOP", "data": {}}` + "\n" + `{"return": {"status": "paused"}}`,
		"cont":         `{"error": {"class": "GenericError", "desc": "no"}}`,
		"quit":         "",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := q.Status(ctx); err != nil || s != "paused" {
		t.Errorf("status %q, %v; want paused, past the event", s, err)
	}
	var refused *QMPError
	if err := q.Run(ctx, "cont", nil, nil); !errors.As(err, &refused) || refused.Desc != "no" {
		t.Errorf("a refusal gives %v", err)
	}
	if err := q.Run(ctx, "stop", nil, nil); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
	if err := q.Run(ctx, "quit", nil, nil); !errors.Is(err, ErrGone) {
		t.Errorf("the end of the connection gives %v", err)
	}
}

// TestQMPDeadline: a QEMU that does not answer does not hold its caller.
func TestQMPDeadline(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := NewQMP(ctx, ours); err == nil {
		t.Error("a silent connection was greeted")
	}
}
