package torture

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thawfs/thaw/index"
)

// checkpoint is what the model knows of one.
type checkpoint struct {
	pages pages
	files map[string][]byte
	set   []index.Run
	image []byte // pages as bytes, once they were asked for

	source string // a directory with all of it, where there is one
}

func (c *checkpoint) bytes() []byte {
	if c.image == nil {
		c.image = c.pages.bytes()
	}
	return c.image
}

// life is what every life has: random choices, a model, and a log of its steps, to explain a failure.
type life struct {
	t     *testing.T
	r     *rand.Rand
	seed  uint64
	begun time.Time
	until time.Time
	most  int // pages of an image
	steps int
	log   []string
	have  map[string]*checkpoint
	avoid []string // names that are not to be taken again yet
	tally map[string]int
	mu    sync.Mutex // of the log, into which the store writes too
}

// newLife begins a life that lasts a share of what -life says.
func newLife(t *testing.T, share float64, most int) *life {
	t.Helper()
	l := &life{
		t: t, seed: *seedFlag, begun: time.Now(), most: most,
		have: map[string]*checkpoint{}, tally: map[string]int{},
	}
	if l.seed == 0 {
		l.seed = rand.Uint64()
	}
	l.r = rand.New(rand.NewPCG(l.seed, 11))
	span := time.Duration(share * float64(*lifeFlag))
	if testing.Short() {
		span /= 5
	}
	l.until = l.begun.Add(span)
	t.Logf("-seed %d", l.seed)
	t.Cleanup(l.epitaph)
	return l
}

func (l *life) goesOn() bool { return time.Now().Before(l.until) && !l.t.Failed() }

// note writes a step into the log.
func (l *life) note(what, format string, args ...any) {
	l.steps++
	l.tally[what]++
	l.log = append(l.log, fmt.Sprintf("%4d %s %s", l.steps, what, fmt.Sprintf(format, args...)))
}

// also adds to the last line of the log.
func (l *life) also(format string, args ...any) {
	if n := len(l.log); n > 0 {
		l.log[n-1] += ": " + fmt.Sprintf(format, args...)
	}
}

// epitaph says what the life was, and, if it failed, how to live it again.
func (l *life) epitaph() {
	var tally []string
	for _, what := range slices.Sorted(maps.Keys(l.tally)) {
		tally = append(tally, fmt.Sprintf("%d %s", l.tally[what], what))
	}
	l.t.Logf("%d steps in %.1f s: %s", l.steps, time.Since(l.begun).Seconds(), strings.Join(tally, ", "))
	if l.t.Failed() {
		l.t.Logf("the steps:\n%s", strings.Join(l.log, "\n"))
		l.t.Logf("once more: go test ./tests/torture -count=1 -run '^%s$' -seed %d -life %v", l.t.Name(),
			l.seed, *lifeFlag)
	}
}

// newName draws a name that is free: one of few, so that names come again, in no order.
func (l *life) newName() string {
	heads := [...]string{"a", "b", "later", "linux", "m", "vm", "z", "Z", "0"}
	for {
		name := heads[l.r.IntN(len(heads))]
		if l.r.IntN(2) == 0 {
			name += fmt.Sprintf("-%d", l.r.IntN(10))
		}
		if l.have[name] == nil && !slices.Contains(l.avoid, name) {
			return name
		}
	}
}

// anyName draws one that is there; "" if there is none.
func (l *life) anyName() string {
	if len(l.have) == 0 {
		return ""
	}
	return l.names()[l.r.IntN(len(l.have))]
}

func (l *life) names() []string { return slices.Sorted(maps.Keys(l.have)) }

// newCheckpoint makes a fresh one at random, or a later version of another one.
func (l *life) newCheckpoint() (*checkpoint, string) {
	c := &checkpoint{files: map[string][]byte{}}
	from := l.anyName()
	var what string
	if from == "" || l.r.IntN(4) == 0 {
		c.pages, what = freshImage(l.r, size(l.r, l.most)), "fresh"
	} else {
		c.pages, what = l.have[from].pages.derive(l.r, l.most)
		what += " from " + from
	}
	if l.r.IntN(3) == 0 {
		c.files["vmstate"] = l.file()
	}
	if l.r.IntN(6) == 0 {
		c.files["config.xml"] = l.file()
	}
	shape := c.drawSet(l.r)
	return c, fmt.Sprintf("%s, %d pages, set %s", what, len(c.pages), shape)
}

func (l *life) file() []byte {
	b := make([]byte, l.r.IntN([...]int{1, 1000, 700_000}[l.r.IntN(3)]+1))
	for i := range b {
		b[i] = byte(l.r.IntN(5))
	}
	return b
}

const setFile = "working-set"

func (c *checkpoint) drawSet(r *rand.Rand) string {
	runs, shape := drawSet(r, len(c.pages))
	c.set = runs
	delete(c.files, setFile)
	if text := setText(runs, len(c.pages)); text != nil {
		c.files[setFile] = text
	}
	return shape
}

// withSet is the checkpoint with another working set.
func (c *checkpoint) withSet(r *rand.Rand) (*checkpoint, string) {
	next := &checkpoint{pages: c.pages, image: c.image, files: maps.Clone(c.files)}
	shape := next.drawSet(r)
	return next, shape
}

// wrong returns the pages of got that are not want's.
func wrong(got, want []byte) (gfns []int) {
	for i := 0; i < len(want); i += pageSize {
		if !bytes.Equal(got[i:i+pageSize], want[i:i+pageSize]) {
			gfns = append(gfns, i/pageSize)
		}
	}
	return gfns
}

// some is the beginning of a list, for messages.
func some[T any](list []T) string {
	if len(list) <= 12 {
		return fmt.Sprintf("%v", list)
	}
	return fmt.Sprintf("%v and %d more", list[:12], len(list)-12)
}

// writeSource writes a checkpoint as a directory to be imported.
func (c *checkpoint) writeSource(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for name, b := range c.files {
		if err := os.WriteFile(dir+"/"+name, b, 0o644); err != nil {
			return err
		}
	}
	return writeSparse(dir+"/memory", c.pages, c.bytes())
}

// sameExport compares an exported directory with the model.
func (c *checkpoint) sameExport(dir string) error {
	got, err := os.ReadFile(dir + "/memory")
	if err != nil {
		return err
	}
	want := c.bytes()
	if len(got) != len(want) {
		return fmt.Errorf("memory has %d bytes, want %d", len(got), len(want))
	}
	if bad := wrong(got, want); len(bad) > 0 {
		return fmt.Errorf("of %d pages %d are wrong: %s", len(c.pages), len(bad), some(bad))
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != "memory" && name != "info.json" && c.files[name] == nil {
			return fmt.Errorf("a file %s that was not imported", name)
		}
	}
	for name, b := range c.files {
		got, err := os.ReadFile(dir + "/" + name)
		if err != nil || !bytes.Equal(got, b) {
			return fmt.Errorf("file %s of %d bytes differs, %d bytes: %v", name, len(b), len(got), err)
		}
	}
	return nil
}
