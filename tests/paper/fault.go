package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// minorFault measures a plain minor fault: the first read of a private mapping whose file lies in
// the page cache. The kernel maps neighbours along, so that not every page that is touched faults:
// the faults are counted. It is the median of several rounds.
func minorFault(dir string) (time.Duration, error) {
	const size, rounds = 128 << 20, 7
	path := filepath.Join(dir, "fault")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		return 0, err
	}
	var all []time.Duration
	for range rounds {
		d, err := touchAll(path, size)
		if err != nil {
			return 0, err
		}
		all = append(all, d)
	}
	slices.Sort(all)
	return all[rounds/2], os.Remove(path)
}

// around is what the kernel maps at most at a fault (fault_around_bytes as it is delivered).
const around = 64 << 10

// touchAll reads a byte in every such stretch of a new mapping and gives the time of a fault.
func touchAll(path string, size int) (each time.Duration, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unix.Munmap(m)) }()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := faults()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	var sum byte
	for at := 0; at < size; at += around {
		sum += m[at]
	}
	took := time.Since(start)
	after, err := faults()
	if err != nil {
		return 0, err
	}
	if sum != 0 || after <= before {
		return 0, fmt.Errorf("%d faults in a new mapping, bytes add up to %d", after-before, sum)
	}
	return took / time.Duration(after-before), nil
}

// faults are the minor faults of this thread so far.
func faults() (int64, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return 0, err
	}
	return u.Minflt, nil
}
