package index

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// rigIndex is the Badger directory of the crash rig: what a crash leaves of it is what it was at that
// moment, or at any other one before.
type rigIndex struct {
	t      *testing.T
	r      *rand.Rand
	dir    string
	copies []string // of the directory, at moments gone by
	last   string   // the one that the crash left; "" if there was no such moment
	n      int
}

func newRigIndex(t *testing.T, r *rand.Rand, dir string) *rigIndex {
	return &rigIndex{t: t, r: r, dir: dir}
}

// copy notes what the index is at this moment, its process being in the middle of whatever it does.
func (x *rigIndex) copy() string {
	x.n++
	to := filepath.Join(filepath.Dir(x.dir), fmt.Sprint("index-copy-", x.n))
	if err := copySparse(x.dir, to); err != nil {
		x.t.Fatal(err)
	}
	x.copies = append(x.copies, to)
	if len(x.copies) > 6 {
		drop := x.r.IntN(3)
		if err := os.RemoveAll(x.copies[drop]); err != nil {
			x.t.Fatal(err)
		}
		x.copies = append(x.copies[:drop], x.copies[drop+1:]...)
	}
	return to
}

// atCrash is called at the crash.
func (x *rigIndex) atCrash() { x.last = x.copy() }

// crash puts an earlier index in the place of the present one, and says which.
func (x *rigIndex) crash() string {
	from, what := x.last, "the index as it was"
	switch n := x.r.IntN(10); {
	case n == 0:
		from, what = "", "no index"
	case n < 4 && len(x.copies) > 0:
		i := x.r.IntN(len(x.copies))
		from, what = x.copies[i], fmt.Sprintf("an index that is %d copies old", len(x.copies)-i)
	case from == "":
		return "the index as it is"
	}
	x.last = ""
	if err := os.RemoveAll(x.dir); err != nil {
		x.t.Fatal(err)
	}
	if from == "" {
		return what
	}
	if err := copySparse(from, x.dir); err != nil {
		x.t.Fatal(err)
	}
	return what
}

// copySparse copies the files of a directory, holes as holes. Of one that is not there it makes an
// empty one.
func copySparse(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			if err := copySparseFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func copySparseFile(from, to string) error {
	in, err := os.Open(from)
	if os.IsNotExist(err) {
		return nil // it went just now
	}
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(st.Size()); err != nil {
		return err
	}
	for at := int64(0); at < st.Size(); {
		start, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if err != nil {
			break // a hole to the end
		}
		end, err := unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, start), io.NewSectionReader(in, start, end-start)); err != nil {
			return err
		}
		at = end
	}
	return nil
}
