package perf

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/thawfs/thaw/tests/internal/image"
)

// openerEnv makes a process of the test binary an opener: it has an openerTask. It opens the memory of many
// images at once, keeps all of them open, reads them when it is told to go on, and compares every byte.
const openerEnv = "THAW_PERF_OPENER"

type openerTask struct {
	Mount  string
	Images int
	Pages  uint64
}

// openerName and openerSpec are image i.
func openerName(i int) string { return fmt.Sprintf("small%04d", i) }

func openerSpec(i int, pages uint64) image.Spec {
	return image.Spec{Pages: pages, Seed: uint64(i) + 1000}
}

// openerAnswer is what it says when it has opened, and when it has read.
type openerAnswer struct {
	Error string
	NS    []int64 // how long each open, or each reading of an image, took
}

func openerMainIfChild() {
	spec, ok := os.LookupEnv(openerEnv)
	if !ok {
		return
	}
	var task openerTask
	if err := json.Unmarshal([]byte(spec), &task); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	o := &opener{task: task, files: make([]*os.File, task.Images)}
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	for _, do := range []func(i int) error{o.open, o.read} {
		if _, err := in.ReadString('\n'); err != nil {
			os.Exit(3)
		}
		if err := out.Encode(o.all(do)); err != nil {
			os.Exit(3)
		}
	}
	_, _ = io.Copy(io.Discard, in) // it ends with what has started it
	os.Exit(0)
}

type opener struct {
	task  openerTask
	files []*os.File
}

// all does something with each image, all at once, and measures how long each takes.
func (o *opener) all(do func(i int) error) (a openerAnswer) {
	a.NS = make([]int64, o.task.Images)
	errs := make([]error, o.task.Images)
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i := range o.task.Images {
		all.Go(func() {
			<-begin
			start := time.Now()
			errs[i] = do(i)
			a.NS[i] = time.Since(start).Nanoseconds()
		})
	}
	close(begin)
	all.Wait()
	if err := errors.Join(slices.DeleteFunc(errs, func(err error) bool { return err == nil })...); err != nil {
		a.Error = err.Error()
	}
	return a
}

func (o *opener) open(i int) (err error) {
	o.files[i], err = os.Open(filepath.Join(o.task.Mount, openerName(i), "memory"))
	return err
}

// read reads an image page by page, in two orders at once: one way that the server runs ahead of, and one
// that it does not.
func (o *opener) read(i int) error {
	spec := openerSpec(i, o.task.Pages)
	got, want := make([]byte, image.PageSize), make([]byte, image.PageSize)
	for n := range o.task.Pages {
		gfn := n
		if i%2 == 0 {
			gfn = (n*37 + 11) % o.task.Pages // a power of two
		}
		if _, err := o.files[i].ReadAt(got, int64(gfn)*image.PageSize); err != nil {
			return fmt.Errorf("page %d: %w", gfn, err)
		}
		spec.Page(gfn, want)
		if string(got) != string(want) {
			return fmt.Errorf("%s: page %d is wrong", openerName(i), gfn)
		}
	}
	return nil
}
