package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// monitor is a connection to the QMP socket of a QEMU.
type monitor struct {
	t    *testing.T
	conn net.Conn
	in   *json.Decoder
}

// dialMonitor connects as soon as there is a socket.
func dialMonitor(t *testing.T, path string) *monitor {
	t.Helper()
	var err error
	for end := time.Now().Add(waitTimeout); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var conn net.Conn
		if conn, err = net.Dial("unix", path); err == nil {
			_ = conn.SetDeadline(time.Now().Add(walkTimeout))
			t.Cleanup(func() { _ = conn.Close() })
			m := &monitor{t: t, conn: conn, in: json.NewDecoder(conn)}
			m.read() // the greeting
			return m
		}
	}
	t.Fatal(err)
	return nil
}

func (m *monitor) read() (reply map[string]any) {
	m.t.Helper()
	if err := m.in.Decode(&reply); err != nil {
		m.t.Fatal(err)
	}
	return reply
}

// do sends the requests of a block, one after the other, and returns what the last one is answered with.
func (m *monitor) do(block string) any {
	m.t.Helper()
	var answer any
	for requests := json.NewDecoder(strings.NewReader(block)); ; {
		var request json.RawMessage
		if err := requests.Decode(&request); errors.Is(err, io.EOF) {
			return answer
		} else if err != nil {
			m.t.Fatalf("%v in\n%s", err, block)
		}
		if _, err := m.conn.Write(append(request, '\n')); err != nil {
			m.t.Fatal(err)
		}
		for {
			reply := m.read()
			if reply["error"] != nil {
				m.t.Fatalf("%s: %v", request, reply["error"])
			}
			var there bool
			if answer, there = reply["return"]; there {
				break
			}
		}
	}
}

// await asks until the status of the answer is, or is not, some word.
func (m *monitor) await(ask string, done func(status any) bool) {
	m.t.Helper()
	for end := time.Now().Add(walkTimeout); ; time.Sleep(20 * time.Millisecond) {
		answer, _ := m.do(`{"execute":"` + ask + `"}`).(map[string]any)
		if done(answer["status"]) {
			return
		}
		if time.Now().After(end) {
			m.t.Fatalf("%s: %v", ask, answer)
		}
	}
}

// "thaw help qemu", step by step, as it stands. The machine has nothing but its firmware; "..." is what
// makes it run without hardware and without a window.
func TestWalkQEMU(t *testing.T) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("needs qemu-system-x86_64 (package qemu-system-x86)")
	}
	s := emptyMachine(t)
	words := strings.NewReplacer("...", "-accel tcg -display none -nodefaults")
	start := func(begins string) string {
		command := strings.TrimSpace(words.Replace(block(t, "qemu", begins, 0)))
		return "(" + command + ") >/tmp/said 2>&1 & echo $! >/tmp/pid"
	}
	const capabilities = `{"execute":"qmp_capabilities"}`

	s.do("start QEMU", start("qemu-system-x86_64 ... -m 512M \\\n  -object"))
	m := dialMonitor(t, s.root("/tmp/qmp"))
	m.do(block(t, "qemu", capabilities, 0))
	m.await("query-migrate", func(status any) bool { return status == "completed" })
	m.do(`{"execute":"quit"}`)
	s.do("QEMU ends", "while kill -0 $(cat /tmp/pid) 2>/dev/null; do sleep 0.01; done; rm -f /tmp/qmp")
	s.do("help qemu: put it into a store", block(t, "qemu", "mkdir saved", 0))

	s.do("restore", start("qemu-system-x86_64 ... -m 512M -incoming"))
	m = dialMonitor(t, s.root("/tmp/qmp"))
	m.do(block(t, "qemu", capabilities, 1))
	m.await("query-status", func(status any) bool { return status != "inmigrate" })
	m.do(block(t, "qemu", `{"execute":"cont"}`, 0))
	m.await("query-status", func(status any) bool { return status == "running" })
	said := s.do("help qemu: the working set", block(t, "qemu", "thaw ws record", 0)+"\nthaw ls /srv/store")
	if !strings.Contains(said, "the working set of debian is now") {
		t.Error(said)
	}
	m.do(`{"execute":"quit"}`)
	s.do("the end", "while kill -0 $(cat /tmp/pid) 2>/dev/null; do sleep 0.01; done; thaw umount /mnt/thaw")
}
