package torture

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/proc"
)

// commandLife is a life through the command line.
type commandLife struct {
	*life
	dir    string // all of it
	store  string
	mount  *cli.Mounted // nil: not mounted
	copies []string     // of the index directory
	n      int

	removed map[string]bool // what was removed while it was being read
}

func TestCommand(t *testing.T) {
	l := &commandLife{life: newLife(t, 0.4, 1600), dir: t.TempDir()}
	l.store = filepath.Join(l.dir, "store")
	if l.r.IntN(2) == 0 {
		l.note("seal", "")
		key := filepath.Join(l.dir, "key")
		cli.OK(t, "key", "new", key)
		t.Setenv("THAW_KEY_FILE", key)
	}
	first := l.imports()
	cli.OK(t, first.args...)
	l.settle(first)
	for round := 0; l.goesOn() && !t.Failed(); round++ {
		t.Run(fmt.Sprint("round", round), func(t *testing.T) {
			l.t = t
			l.round()
		})
	}
	l.t = t
}

// round works on the store, serves it for a while, and looks at what is left.
func (l *commandLife) round() {
	for range 2 + l.r.IntN(6) {
		l.offline()
	}
	if l.r.IntN(3) > 0 && len(l.have) > 0 {
		l.serve()
	}
	l.verify()
}

func (l *commandLife) offline() {
	switch n := l.r.IntN(20); {
	case n < 14:
		l.command(l.plan())
	case n < 15:
		l.note("rebuild", "")
		cli.OK(l.t, "check", l.store, "--rebuild-index")
	default:
		l.index()
	}
}

// order is a command, and what it makes of the model: name is after then. No name: nothing.
type order struct {
	args  []string
	name  string
	after *checkpoint
	done  func()
}

// plan draws a command that changes the store. Nil: there is nothing to do.
func (l *commandLife) plan() *order {
	name := l.anyName()
	switch n := l.r.IntN(17); {
	case n >= 14:
		return l.repacks(name)
	case n < 6 && len(l.have) < 7 || name == "":
		return l.imports()
	case n < 8:
		l.note("rm", "%s", name)
		return &order{args: []string{"rm", l.store, name}, name: name}
	case n < 10:
		return l.sets(name)
	default:
		l.note("gc", "")
		return &order{args: []string{"gc", l.store}}
	}
}

func (l *commandLife) repacks(name string) *order {
	args := []string{"repack", l.store}
	if name != "" && l.r.IntN(3) == 0 {
		args = append(args, name)
	}
	l.note("repack", "%v", args[2:])
	return &order{args: args}
}

func (l *commandLife) imports() *order {
	name := l.newName()
	c, what := l.newCheckpoint()
	l.n++
	dir := filepath.Join(l.dir, fmt.Sprint("source-", l.n))
	if err := c.writeSource(dir); err != nil {
		l.t.Fatal(err)
	}
	args := []string{"import", l.store, dir, "--name", name, "--max-share=100"}
	if l.r.IntN(2) == 0 {
		args = append(args, "--layout=physical")
	}
	if p := [...]string{"fast", "small", "", ""}[l.r.IntN(4)]; p != "" {
		args = append(args, "--profile="+p)
	}
	l.note("import", "%s: %s %v", name, what, args[6:])
	c.source = dir
	return &order{args: args, name: name, after: c}
}

func (l *commandLife) sets(name string) *order {
	after, shape := l.have[name].withSet(l.r)
	if after.files[setFile] == nil {
		return nil // the command line cannot take a set away
	}
	l.n++
	file := filepath.Join(l.dir, fmt.Sprint("set-", l.n))
	if err := os.WriteFile(file, after.files[setFile], 0o644); err != nil {
		l.t.Fatal(err)
	}
	l.note("set", "%s: %s", name, shape)
	return &order{
		args: []string{"ws", "import", l.store, name, file, "--max-share=100"},
		name: name, after: after, done: func() { os.Remove(file) },
	}
}

// command runs a command, or kills it at some instant; then all is as before or as after.
func (l *commandLife) command(o *order) {
	if o == nil {
		return
	}
	if o.done != nil {
		defer o.done()
	}
	switch l.r.IntN(8) {
	case 0:
		l.orphaned(o)
		return
	case 1, 2: // killed below
	case 3:
		l.interrupted(o)
		return
	default:
		cli.OK(l.t, o.args...)
		l.settle(o)
		return
	}
	after := time.Duration(l.r.IntN(150)) * time.Millisecond
	l.tally["kill"]++
	l.also("killed after %v", after)
	if l.killed(o.args, after) {
		l.settle(o)
		return
	}
	l.find(o)
}

// killed runs a command and kills it after some time. It says whether it had worked until then.
func (l *commandLife) killed(args []string, after time.Duration) (worked bool) {
	cmd := cli.Command(args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	p, err := proc.Start(cmd)
	if err != nil {
		l.t.Fatal(err)
	}
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-p.Done():
	case <-timer.C:
	}
	if err := p.Kill(10 * time.Second); err != nil {
		l.t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code > 0 {
		l.t.Fatalf("thaw %v: status %d\n%s", args, code, said.String())
	}
	return cmd.ProcessState.ExitCode() == 0
}

// interrupted runs a command and ends it as ctrl-C does: it says that, or it has done its work.
func (l *commandLife) interrupted(o *order) {
	cmd := cli.Command(o.args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	p, err := proc.Start(cmd)
	if err != nil {
		l.t.Fatal(err)
	}
	after := time.Duration(l.r.IntN(150)) * time.Millisecond
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-p.Done():
	case <-timer.C:
		if err := p.Signal(syscall.SIGINT); err != nil {
			l.t.Fatal(err)
		}
	}
	l.tally["interrupt"]++
	l.also("interrupted after %v", after)
	var hang *proc.HangError
	if err := p.Wait(time.Minute); errors.As(err, &hang) {
		_ = p.Kill(10 * time.Second)
		l.t.Fatalf("thaw %v was interrupted, and goes on: %v\n%s", o.args, err, said.String())
	}
	switch status := cmd.ProcessState.Sys().(syscall.WaitStatus); {
	case status.Exited() && status.ExitStatus() == 0:
		l.settle(o)
	case status.Exited() && status.ExitStatus() == 130, status.Signaled() && status.Signal() == syscall.SIGINT:
		l.find(o) // the signal comes before the program is ready for it, too
	default:
		l.t.Fatalf("thaw %v was interrupted: %v\n%s", o.args, cmd.ProcessState, said.String())
	}
}

// orphaned runs a command and kills the processes that it started: it must do without them.
func (l *commandLife) orphaned(o *order) {
	cmd := cli.Command(o.args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	p, err := proc.Start(cmd)
	if err != nil {
		l.t.Fatal(err)
	}
	after := time.NewTimer(time.Duration(l.r.IntN(100)) * time.Millisecond)
	defer after.Stop()
	killed := 0
	for again := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case <-p.Done():
		case <-after.C:
			killed += killChildren(p.Pid())
		case <-again.C:
			if killed == 0 {
				killed += killChildren(p.Pid()) // if it had none then
			}
			continue
		}
		again.Stop()
		break
	}
	if err := p.Wait(time.Minute); err != nil {
		_ = p.Kill(10 * time.Second)
		l.t.Fatalf("thaw %v, %d of its processes were killed: %v\n%s", o.args, killed, err, said.String())
	}
	l.tally["kill of a child"] += killed
	l.also("%d of its processes killed", killed)
	l.settle(o)
}

// killChildren kills what a process started, and says how many.
func killChildren(pid int) (n int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		b, _ := os.ReadFile(list) // the thread may be gone
		for _, field := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(field); err == nil && syscall.Kill(child, syscall.SIGKILL) == nil {
				n++
			}
		}
	}
	return n
}

func (l *commandLife) settle(o *order) {
	if o.name == "" {
		return
	}
	before := l.have[o.name]
	delete(l.have, o.name)
	if o.after == nil {
		l.forget(before)
		return
	}
	if before != nil {
		o.after.source = before.source
	}
	l.have[o.name] = o.after
}

// forget removes what a checkpoint was imported from.
func (l *commandLife) forget(c *checkpoint) {
	if err := os.RemoveAll(c.source); err != nil {
		l.t.Fatal(err)
	}
}

// find finds out what a killed command has done.
func (l *commandLife) find(o *order) {
	if o.name == "" {
		return
	}
	there := slices.Contains(l.list(), o.name)
	before := l.have[o.name]
	switch {
	case before == nil && there, before != nil && !there && o.after == nil:
		l.settle(o)
	case before == nil:
		l.forget(o.after)
	case !there:
		l.t.Fatalf("%s is lost", o.name)
	case o.after != nil:
		// One that had no set and has none now: not found.
		r := cli.Run(l.t, "ws", "show", l.store, o.name, "--text")
		if r.Code == 0 && r.Stdout == string(o.after.files[setFile]) {
			l.settle(o)
		}
	}
}

func (l *commandLife) list() (names []string) {
	for _, c := range cli.JSON[[]struct{ Name string }](l.t, "ls", l.store) {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	return names
}

// index makes the store an index; or takes it away, replaces it by an older one, or damages it.
func (l *commandLife) index() {
	dir := filepath.Join(l.store, "index")
	if _, err := os.Stat(dir); err != nil {
		l.note("make index", "") // a store as small as this one has none otherwise
		cli.OK(l.t, "check", l.store, "--rebuild-index")
		return
	}
	switch n := l.r.IntN(6); {
	case n == 0:
		l.note("keep index", "")
		to := fmt.Sprint(dir, "-copy-", l.steps)
		to = filepath.Join(l.dir, filepath.Base(to))
		if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
			l.t.Fatal(err)
		}
		l.copies = append(l.copies, to)
	case n == 1 && len(l.copies) > 0:
		l.note("old index", "")
		from := l.copies[l.r.IntN(len(l.copies))]
		if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(from))); err != nil {
			l.t.Fatal(err)
		}
	case n == 2:
		l.note("lose index", "")
		if err := os.RemoveAll(dir); err != nil {
			l.t.Fatal(err)
		}
	default:
		if err := damageIndex(l.life, dir); err != nil {
			l.t.Fatal(err)
		}
	}
}

// verify lists, exports and checks everything.
func (l *commandLife) verify() {
	l.note("verify", "")
	if names := l.list(); !slices.Equal(names, l.names()) {
		l.t.Fatalf("there are %v, want %v", names, l.names())
	}
	for _, name := range l.names() {
		out := filepath.Join(l.dir, "out")
		cli.OK(l.t, "export", l.store, name, out)
		if err := l.have[name].sameExport(out); err != nil {
			l.t.Errorf("export %s: %v", name, err)
		}
		if err := os.RemoveAll(out); err != nil {
			l.t.Fatal(err)
		}
	}
	if len(l.have) > 0 {
		cli.OK(l.t, "check", l.store, "--read-data")
	}
}
