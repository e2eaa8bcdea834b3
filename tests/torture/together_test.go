package torture

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/tests/internal/proc"
)

// TestTogether: processes that write to one store and processes that read it, each with several
// goroutines, all at once, some of them killed. Whatever a reader sees of a checkpoint says itself
// what its bytes must be: its file "recipe" has the numbers that its pages are drawn from.

const workerEnv = "THAW_TEST_TORTURE_WORKER"

// job is what a worker is told.
type job struct {
	Store, Scratch string
	Writer         bool
	Name           string // begins the names of what it imports
	Seed           uint64
	For            time.Duration
}

// recipe is what an image is made of: a base, of which a share of the pages are others.
type recipe struct {
	Base, Own uint64
	Share     float64
	Pages     int
}

func (q recipe) pages() pages {
	base, own := rand.New(rand.NewPCG(q.Base, 1)), rand.New(rand.NewPCG(q.Own, 2))
	p := make(pages, q.Pages)
	for i := range p {
		p[i] = freshPage(base)
		if n := freshPage(own); own.Float64() < q.Share {
			p[i] = n * (n % 8) / max(1, n%8) // some are zeros
		}
	}
	return p
}

// workerMainIfChild must be called first by TestMain: in a worker it does not return.
func workerMainIfChild() {
	told := os.Getenv(workerEnv)
	if told == "" {
		return
	}
	var j job
	if err := json.Unmarshal([]byte(told), &j); err != nil {
		fmt.Println("error", err)
		os.Exit(3)
	}
	ctx, cancel := context.WithTimeout(context.Background(), j.For)
	defer cancel()
	work := j.read
	if j.Writer {
		work = j.write
	}
	if err := work(ctx); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// worker is a process at work: what it says is a line for each thing that it begins or has done.
type worker struct {
	j   job
	s   *index.Store
	mu  sync.Mutex
	own []string // names that it imported and has not removed; guarded by mu
	n   int      // guarded by mu
}

// write opens the store again and again, and lets goroutines work on it each time.
func (j job) write(ctx context.Context) error {
	w := &worker{j: j}
	r := rand.New(rand.NewPCG(j.Seed, 3))
	for round := 0; ctx.Err() == nil; round++ {
		s, err := index.Open(context.Background(), j.Store, index.OpenOptions{
			Create: true, Wait: 20 * time.Second, Keeper: keeper,
		})
		if err != nil {
			return err
		}
		w.s = s
		var wg sync.WaitGroup
		failed := make([]error, 3)
		for i := range failed {
			seed := r.Uint64()
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, 4))
				for range 1 + rnd.IntN(3) {
					failed[i] = errors.Join(failed[i], w.step(rnd))
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errors.Join(failed...), s.Close()); err != nil {
			return err
		}
	}
	return nil
}

// step does one thing.
func (w *worker) step(r *rand.Rand) error {
	ctx := context.Background()
	switch n := r.IntN(11); {
	case n >= 10:
		_, err := w.s.Repack(ctx, index.RepackOptions{})
		return err
	case n < 5:
		return w.imports(ctx, r)
	case n < 7:
		return w.removes(ctx, r)
	case n < 8:
		return w.sets(ctx, r)
	default:
		_, err := w.s.GC(ctx, index.GCOptions{})
		return err
	}
}

func (w *worker) imports(ctx context.Context, r *rand.Rand) error {
	w.mu.Lock()
	w.n++
	name := fmt.Sprintf("%s-%d-%d", w.j.Name, os.Getpid(), w.n)
	full := len(w.own) > 5
	w.mu.Unlock()
	if full {
		return w.removes(ctx, r)
	}
	q := recipe{
		Base: 1 + r.Uint64N(3), Own: r.Uint64(), Pages: 1 + r.IntN(900),
		Share: [...]float64{0, 0.03, 0.3, 0.8}[r.IntN(4)],
	}
	text, err := json.Marshal(q)
	if err != nil {
		return err
	}
	c := &checkpoint{pages: q.pages(), files: map[string][]byte{"recipe": text}}
	c.drawSet(r)
	dir := filepath.Join(w.j.Scratch, name)
	if err := c.writeSource(dir); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	src, err := index.OpenSource(dir)
	if err != nil {
		return err
	}
	fmt.Println("begin import", name)
	if _, _, err := w.s.Import(ctx, src, index.ImportOptions{Name: name, WorkingSet: c.set}); err != nil {
		return err
	}
	fmt.Println("end import", name)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.own = append(w.own, name)
	return nil
}

// take returns a name of the worker's own, for one goroutine; "" if there is none.
func (w *worker) take(r *rand.Rand) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.own) == 0 {
		return ""
	}
	i := r.IntN(len(w.own))
	name := w.own[i]
	w.own = slices.Delete(w.own, i, i+1)
	return name
}

func (w *worker) removes(ctx context.Context, r *rand.Rand) error {
	name := w.take(r)
	if name == "" {
		return nil
	}
	fmt.Println("begin remove", name)
	if err := w.s.Remove(ctx, name); err != nil {
		return err
	}
	fmt.Println("end remove", name)
	return nil
}

func (w *worker) sets(ctx context.Context, r *rand.Rand) error {
	name := w.take(r)
	if name == "" {
		return nil
	}
	n := 1 + r.IntN(20)
	runs := []index.Run{{GFN: 0, Count: 1}}
	_, err := w.s.SetWorkingSet(ctx, name, fmt.Appendf(nil, "set %d", n), runs)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.own = append(w.own, name)
	return err
}

// read reads the store beside the writers, in several goroutines.
func (j job) read(ctx context.Context) error {
	s, err := index.Open(context.Background(), j.Store, index.OpenOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	failed := make([]error, 3)
	for i := range failed {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(j.Seed, uint64(i)))
			for n := 0; ctx.Err() == nil && failed[i] == nil; n++ {
				failed[i] = readOne(ctx, s, r)
			}
		})
	}
	wg.Wait()
	return errors.Join(errors.Join(failed...), s.Close())
}

// readOne reads one checkpoint, and again after a while.
func readOne(ctx context.Context, s *index.Store, r *rand.Rand) error {
	list, err := s.List(context.Background())
	if err != nil || len(list) == 0 {
		return err
	}
	v := list[r.IntN(len(list))].Version()
	gone := func(err error) bool {
		return errors.Is(err, index.ErrNotFound) || errors.Is(err, index.ErrChanged)
	}
	m, err := s.OpenImageOf(context.Background(), v)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", v.Name, err)
	}
	defer m.Close()
	f, err := s.OpenFileOf(context.Background(), v, "recipe")
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: recipe: %w", v.Name, err)
	}
	defer f.Close()
	text := make([]byte, f.Size())
	if _, err := f.ReadAt(text, 0); err != nil && len(text) > 0 {
		return fmt.Errorf("%s: recipe: %w", v.Name, err)
	}
	var q recipe
	if err := json.Unmarshal(text, &q); err != nil {
		return fmt.Errorf("%s: recipe %q: %w", v.Name, text, err)
	}
	c := &checkpoint{pages: q.pages()}
	for range 3 { // what is open stays readable, whatever happens to its name
		if err := readOpen(r, m, c); err != nil {
			return fmt.Errorf("%s: %w", v.Name, err)
		}
		if r.IntN(2) == 0 {
			if err := s.Refresh(context.Background()); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	fmt.Println("read", v.Name)
	return nil
}

// readOpen reads an image whose working set is not known.
func readOpen(r *rand.Rand, m *index.Image, c *checkpoint) error {
	rd := &reading{m: m, want: c.bytes(), state: sound}
	if m.Size() != int64(len(rd.want)) {
		return fmt.Errorf("%d bytes, want %d", m.Size(), len(rd.want))
	}
	return errors.Join(rd.ranges(r), rd.feed("working set", m.WorkingSetFeed()), rd.single(r))
}

// startWorker starts a worker, which says what it does.
func startWorker(t *testing.T, j job) *workerProcess {
	t.Helper()
	told, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	p := &workerProcess{j: j}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerEnv+"="+string(told))
	cmd.Stdout, cmd.Stderr = &p.out, &p.diag
	if p.proc, err = proc.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.proc.Kill(10 * time.Second) })
	return p
}

type workerProcess struct {
	j         job
	proc      *proc.Process
	out, diag bytes.Buffer
}

// follow brings the model up to what a worker said: what it had begun last is in doubt.
func (p *workerProcess) follow(have, doubt map[string]bool) (reads int) {
	for sc := bufio.NewScanner(&p.out); sc.Scan(); {
		w := strings.Fields(sc.Text())
		switch {
		case len(w) == 2 && w[0] == "read":
			reads++
		case len(w) < 3:
		case w[0] == "begin":
			doubt[w[2]] = true
		case w[0] == "end":
			delete(doubt, w[2])
			if have[w[2]] = true; w[1] == "remove" {
				delete(have, w[2])
			}
		}
	}
	return reads
}

func TestTogether(t *testing.T) {
	l := newLife(t, 0.1, 900)
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	s, err := index.Open(t.Context(), store, index.OpenOptions{Create: true, Keeper: keeper})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	have, doubt := map[string]bool{}, map[string]bool{}
	for round := 0; l.goesOn(); round++ {
		var all []*workerProcess
		for i := range 4 {
			all = append(all, startWorker(t, job{
				Store: store, Scratch: dir, Writer: i%2 == 0, Name: fmt.Sprintf("w%d", i),
				Seed: l.r.Uint64(), For: 2 * time.Second,
			}))
		}
		if l.r.IntN(2) == 0 {
			l.note("kill", "a writer of round %d", round)
			timer := time.NewTimer(time.Duration(l.r.IntN(2000)) * time.Millisecond)
			<-timer.C
			if err := all[0].proc.Kill(10 * time.Second); err != nil {
				t.Fatal(err)
			}
		}
		l.together(store, all, have, doubt)
	}
}

// together waits for the workers, and compares what they said with what there is.
func (l *life) together(store string, all []*workerProcess, have, doubt map[string]bool) {
	for i, p := range all {
		err := p.proc.Wait(time.Minute)
		said := p.out.String()
		l.tally["reads"] += p.follow(have, doubt)
		if killed := i == 0 && p.proc.Err() != nil && !strings.Contains(said, "error"); err != nil && !killed {
			at := max(0, strings.LastIndex(said, "\nerror"))
			l.t.Errorf("%s: %v: %s%s", p.j.Name, err, said[at:], p.diag.String())
		}
	}
	if l.t.Failed() {
		l.t.FailNow()
	}
	l.note("verify", "")
	s, err := index.Open(l.t.Context(), store, index.OpenOptions{Keeper: keeper})
	if err != nil {
		l.t.Fatal(err)
	}
	defer s.Close()
	list, err := s.List(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	there := map[string]bool{}
	for _, c := range list {
		there[c.Name] = true
		if !have[c.Name] && !doubt[c.Name] {
			l.t.Errorf("%s came back", c.Name)
		}
	}
	for name := range have {
		if !there[name] && !doubt[name] {
			l.t.Errorf("%s is lost", name)
		}
	}
	clear(doubt)
	clear(have)
	for name := range there {
		have[name] = true
	}
	rep, err := s.Check(l.t.Context(), index.CheckOptions{ReadData: true})
	if err != nil || !rep.OK() {
		l.t.Errorf("check: %v, %s", err, some(rep.Problems))
	}
}
