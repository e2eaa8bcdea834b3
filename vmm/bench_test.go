package vmm

import (
	"testing"
)

// BenchmarkLoad measures a restore up to the first instruction, with everything in the page cache, and
// the end of the machine.
func BenchmarkLoad(b *testing.B) {
	dir := checkpointed(b, spec("idle"), 128<<20, 1)
	for b.Loop() {
		l, err := loadDir(dir, testLog(b))
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPause pauses a busy vCPU, reads its state and resumes it.
func BenchmarkPause(b *testing.B) {
	m := newTestMachine(b, spec("heap", "set", "4MiB"), testMemory)
	runUntil(b, m, 1)
	for b.Loop() {
		if err := m.Pause(); err != nil {
			b.Fatal(err)
		}
		if _, err := m.save(); err != nil {
			b.Fatal(err)
		}
		if err := m.Resume(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScan reads which pages of a restored machine were touched and changed.
func BenchmarkScan(b *testing.B) {
	dir := checkpointed(b, spec("random:50"), 128<<20, 1)
	l, err := loadDir(dir, testLog(b))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	runUntil(b, l.Machine, 20000)
	if err := l.Pause(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := l.mem.Scan(); err != nil {
			b.Fatal(err)
		}
	}
}
