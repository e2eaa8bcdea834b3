package process

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// blockedWriter writes nothing until it is released, as a pipe that nobody reads.
type blockedWriter struct {
	release chan struct{}
	bytes.Buffer
}

func (w *blockedWriter) Write(p []byte) (int, error) {
	<-w.release
	return w.Buffer.Write(p)
}

func TestPatientWriterNeverWaits(t *testing.T) {
	w := &blockedWriter{release: make(chan struct{})}
	p := NewPatientWriter(w)
	for range 3 * patientLines { // or the test hangs
		if _, err := io.WriteString(p, "line\n"); err != nil {
			t.Fatal(err)
		}
	}
	close(w.release)
	for p.lostLines() > 0 { // until there is room again, which is said
		if _, err := io.WriteString(p, "more\n"); err != nil {
			t.Fatal(err)
		}
	}
	p.Close()
	got := w.String()
	if !strings.Contains(got, "messages were left out here\n") {
		t.Errorf("nothing says that something is missing in %d bytes", len(got))
	}
	if n := strings.Count(got, "line\n"); n < patientLines {
		t.Errorf("%d lines of at least %d arrived", n, patientLines)
	}
	if _, err := io.WriteString(p, "late\n"); err != nil {
		t.Errorf("a write after the end: %v", err)
	}
}

func (p *PatientWriter) lostLines() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestPatientWriterOnAFullDisk(t *testing.T) {
	p := NewPatientWriter(brokenWriter{})
	if n, err := io.WriteString(p, "line\n"); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	p.Close()
}
