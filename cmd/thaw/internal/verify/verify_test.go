package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// image writes a file of random bytes.
func image(t *testing.T, size int, seed uint64) string {
	t.Helper()
	data := make([]byte, size)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	path := filepath.Join(t.TempDir(), fmt.Sprint("image-", seed))
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// each calls test with every way to read.
func each(t *testing.T, test func(t *testing.T, c Config)) {
	for _, by := range []string{Mmap, Read} {
		for _, order := range []string{Sequential, Random} {
			t.Run(by+"-"+order, func(t *testing.T) {
				test(t, Config{By: by, Order: order, Seed: 1})
			})
		}
	}
}

func TestEqual(t *testing.T) {
	for _, size := range []int{1, PageSize, 3<<20 + 123} {
		file, source := image(t, size, 1), image(t, size, 1)
		each(t, func(t *testing.T, c Config) {
			c.File, c.Against = file, source
			r, err := Run(t.Context(), c)
			if err != nil || r.Differ != 0 || r.Pages != int64((size+PageSize-1)/PageSize) {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

func TestDifferent(t *testing.T) {
	file, source := image(t, 64<<12, 1), image(t, 64<<12, 1)
	data, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	data[5*4096+77] ^= 1
	data[9*4096] ^= 1
	data[9*4096+1] ^= 1
	if err := os.WriteFile(source, data, 0o644); err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, c Config) {
		c.File, c.Against = file, source
		r, err := Run(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(r.At)
		if r.Pages != 64 || r.Differ != 2 || !slices.Equal(r.At, []int64{5*4096 + 77, 9 * 4096}) {
			t.Errorf("%+v", r)
		}
	})
}

// A page that cannot be read is an error, not a crash: here one that a shorter file no longer has.
func TestFaultIsAnError(t *testing.T) {
	file := image(t, 64<<12, 1)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := newMapping(f, 64<<12, Random)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if err := os.Truncate(file, 32<<12); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	if err := m.read(31<<12, buf); err != nil {
		t.Error(err)
	}
	err = m.read(40<<12, buf)
	var read *ReadError
	if !errors.As(err, &read) || read.Offset != 40<<12 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

func TestEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	file := image(t, 1<<20, 1)
	_, err := Run(ctx, Config{File: file, Against: file, By: Read, Order: Random})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	file := image(t, 1<<20, 1)
	good := Config{File: file, Against: file, By: Mmap, Order: Random}
	for name, change := range map[string]func(*Config){
		"by":        func(c *Config) { c.By = "libaio" },
		"order":     func(c *Config) { c.Order = "zipf" },
		"directory": func(c *Config) { c.File = filepath.Dir(file) },
		"empty":     func(c *Config) { c.File = image(t, 0, 3) },
		"size":      func(c *Config) { c.Against = image(t, 4096, 2) },
	} {
		c := good
		change(&c)
		if r, err := Run(t.Context(), c); !exitcode.Has(err, exitcode.Usage) || r != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := good
	c.File = file + "-not"
	if _, err := Run(t.Context(), c); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
