package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The restorer is a process that reads a snapshot of Firecracker or Cloud Hypervisor as their sources do:
// with their flags of open(2) and mmap(2), their checks of sizes, their lseek(2). It writes what would be the
// guest's memory to a file.

// restorerEnv makes the test binary the restorer: it says how.
const restorerEnv = "THAW_E2E_RESTORER"

// restorerMainIfChild does not return in the restorer. Its arguments are the directory and the file to write.
func restorerMainIfChild() {
	how := os.Getenv(restorerEnv)
	if how == "" {
		return
	}
	restore := map[string]func(dir string, out *os.File) (int64, error){
		"firecracker":                  restoreFirecracker,
		"cloud-hypervisor copy":        restoreCloudCopy,
		"cloud-hypervisor ondemand":    restoreCloudOnDemand,
		"cloud-hypervisor copyonwrite": restoreCloudCopyOnWrite,
	}[how]
	out, err := os.Create(os.Args[2])
	if err == nil {
		var read int64
		read, err = restore(os.Args[1], out)
		fmt.Println(read)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// firecrackerRegions are the sizes of the regions of the tests' machine, which its vmstate tells Firecracker.
var firecrackerRegions = []int{24 << 20, 8 << 20}

// restoreFirecracker does what Firecracker does for mem_backend File (vstate/memory.rs, snapshot_file): the
// file has to be as large as all regions, each of which is mapped private and without a reserve.
func restoreFirecracker(dir string, out *os.File) (int64, error) {
	if _, err := os.ReadFile(filepath.Join(dir, "vmstate")); err != nil {
		return 0, err
	}
	f, err := os.Open(filepath.Join(dir, "mem")) // read-only
	if err != nil {
		return 0, err
	}
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	off := int64(0)
	for _, size := range firecrackerRegions {
		if st.Size() < off+int64(size) {
			return 0, fmt.Errorf("the memory file has %d bytes, too few", st.Size())
		}
		m, err := unix.Mmap(int(f.Fd()), off, size, unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_NORESERVE)
		if err != nil {
			return 0, err
		}
		if err := keep(m, off, out); err != nil {
			return 0, err
		}
		off += int64(size)
	}
	return off, nil
}

// keep writes memory out. What the guest writes to it stays its own.
func keep(m []byte, off int64, out *os.File) error {
	if _, err := out.WriteAt(m, off); err != nil { // faults are in the kernel, and errors
		return err
	}
	for at := 0; at < len(m); at += 64 << 10 {
		m[at] ^= 0xff
	}
	return unix.Munmap(m)
}

// cloudRanges are the lengths of the ranges in state.json.
func cloudRanges(dir string) (lengths []int, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if err != nil {
		return nil, err
	}
	if _, err := os.ReadFile(filepath.Join(dir, "config.json")); err != nil {
		return nil, err
	}
	var s struct {
		Snapshots map[string]struct {
			Data struct{ State string } `json:"snapshot_data"`
		}
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, err
	}
	var table struct {
		Ranges struct{ Data []struct{ Length int } } `json:"memory_ranges"`
	}
	err = json.Unmarshal([]byte(s.Snapshots["memory-manager"].Data.State), &table)
	for _, r := range table.Ranges.Data {
		lengths = append(lengths, r.Length)
	}
	return lengths, err
}

// eachRange opens memory-ranges and calls fn for each range with anonymous memory for it.
func eachRange(dir string, out *os.File, fn func(f *os.File, off int64, m []byte) (int64, error)) (
	read int64, err error,
) {
	lengths, err := cloudRanges(dir)
	if err != nil {
		return 0, err
	}
	f, err := os.Open(filepath.Join(dir, "memory-ranges")) // read-only
	if err != nil {
		return 0, err
	}
	off := int64(0)
	for _, n := range lengths {
		m, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return 0, err
		}
		got, err := fn(f, off, m)
		if err != nil {
			return 0, err
		}
		read += got
		if err := keep(m, off, out); err != nil {
			return 0, err
		}
		off += int64(n)
	}
	return read, nil
}

// restoreCloudCopy is memory_restore_mode=copy: what is data by SEEK_DATA and SEEK_HOLE is read (sparse.rs).
func restoreCloudCopy(dir string, out *os.File) (int64, error) {
	return eachRange(dir, out, func(f *os.File, off int64, m []byte) (read int64, err error) {
		end := off + int64(len(m))
		for at := off; at < end; {
			data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
			if errors.Is(err, unix.ENXIO) || err == nil && data >= end {
				break
			}
			if err != nil {
				return 0, err // the dense way, which the tests do not want
			}
			hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
			if err != nil {
				return 0, err
			}
			hole = min(hole, end)
			if _, err := io.ReadFull(io.NewSectionReader(f, data, hole-data), m[data-off:hole-off]); err != nil {
				return 0, err
			}
			read += hole - data
			at = hole
		}
		return read, nil
	})
}

// restoreCloudOnDemand is memory_restore_mode=ondemand: each page is read when it is touched.
func restoreCloudOnDemand(dir string, out *os.File) (int64, error) {
	return eachRange(dir, out, func(f *os.File, off int64, m []byte) (read int64, err error) {
		pages := len(m) / 4096
		for i := range pages {
			at := i * 7919 % pages * 4096 // in an order that no readahead guesses: 7919 is a prime
			n, err := f.ReadAt(m[at:at+4096], off+int64(at))
			if err != nil {
				return 0, err
			}
			read += int64(n)
		}
		return read, nil
	})
}

// restoreCloudCopyOnWrite is memory_restore_mode=copyonwrite: the file is mapped private.
func restoreCloudCopyOnWrite(dir string, out *os.File) (int64, error) {
	return eachRange(dir, out, func(f *os.File, off int64, m []byte) (int64, error) {
		file, err := unix.Mmap(int(f.Fd()), off, len(m), unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_NORESERVE)
		if err != nil {
			return 0, err
		}
		if err := unix.Madvise(file, unix.MADV_POPULATE_READ); err != nil {
			return 0, err
		}
		copy(m, file)
		return 0, unix.Munmap(file)
	})
}
