package guest

import (
	"embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

//go:embed bin/*.bin bin/compiler
var files embed.FS

// Spec is a program and its options, as a user writes them: "random:30", {"seed": "7"}.
type Spec struct {
	Program string            `json:"program"`
	Args    map[string]string `json:"args,omitempty"`
}

// Program is a guest program, ready to be loaded.
type Program struct {
	Name   string
	Units  string // its unit of work: "transactions", ...
	CPUs   int    // number of vCPUs that it needs
	Binary []byte // for LoadAddr
	boot   Boot
	fill   uint64 // percent
	set    bytesOrPercent
	fixed  bool // the set was given by the user and must fit; a default is reduced to fit
}

// bytesOrPercent is the size of a working set: bytes, or a share of all memory.
type bytesOrPercent struct{ bytes, percent uint64 }

// definition has the properties in which programs differ.
type definition struct {
	units   string
	set     uint64 // bytes
	period  time.Duration
	write   uint64
	cold    uint64
	cluster uint64
	minSet  uint64 // pages
	bare    bool   // fills no memory, takes no options
	cpus    int    // 0: one
}

var definitions = map[string]definition{
	"heap":   {units: "transactions", set: 192 << 20, write: 50, cold: 4096, cluster: 4, minSet: 1},
	"stream": {units: "frames", set: 41e6, period: time.Second / 30, cluster: 16, minSet: 193},
	"idle": {units: "ticks", set: 1 << 20, period: time.Second / 10, write: 10, cluster: 1,
		minSet: 1},
	"random":    {units: "pages", write: 25, cluster: 1, minSet: 1},
	"registers": {units: "rounds", bare: true},
	"pair":      {units: "rounds", set: 1 << 20, cluster: 1, minSet: 2, cpus: 2},
}

// Names lists the programs.
func Names() []string { return slices.Sorted(maps.Keys(definitions)) }

// Options describes the options of all programs, for a manual.
const Options = `seed=N       seed of all random numbers (default 1)
set=SIZE     working set (heap 192MiB, stream 41MB, idle 1MiB)
fill=PCT     share of memory that the program fills and uses (default 100)
units=N      stop after N units (transactions, frames, ticks, pages)
write=PCT    share of accesses that change the page (heap 50, random 25, idle 10)
cold=N       heap: one in N transactions leaves the set, 0 none (default 4096)
cluster=N    pages that stay together where the set is spread over memory (heap 4, stream 16)
period=TIME  time between two frames or ticks (stream 33.3ms, idle 100ms)`

// Load finds a program and reads its options.
func Load(s Spec) (*Program, error) {
	name, percent, hasPercent := strings.Cut(s.Program, ":")
	d, ok := definitions[name]
	if !ok {
		return nil, fmt.Errorf("there is no guest program %q; there are %s", s.Program,
			strings.Join(Names(), ", "))
	}
	bin, err := files.ReadFile("bin/" + name + ".bin")
	if err != nil {
		return nil, err
	}
	p := &Program{Name: name, Units: d.units, CPUs: max(d.cpus, 1), Binary: bin, fill: 100}
	p.boot = Boot{Magic: bootMagic, Seed: 1, PeriodUS: uint64(d.period.Microseconds()),
		WritePercent: d.write, Cold: d.cold, Cluster: max(d.cluster, 1)}
	p.set.bytes = d.set
	switch {
	case name == "random":
		n, err := strconv.ParseUint(percent, 10, 64)
		if err != nil || n < 1 || n > 100 {
			return nil, fmt.Errorf("guest program %q: it must be random:PCT with PCT from 1 to 100", s.Program)
		}
		p.set = bytesOrPercent{percent: n}
	case hasPercent:
		return nil, fmt.Errorf("guest program %q: only random takes a number", s.Program)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Args)) {
		if d.bare {
			return nil, fmt.Errorf("guest program %s takes no options", name)
		}
		if err := p.option(k, s.Args[k]); err != nil {
			return nil, fmt.Errorf("guest program %s: option %s=%s: %w", name, k, s.Args[k], err)
		}
	}
	return p, nil
}

func (p *Program) option(key, value string) error {
	for _, o := range []struct {
		key    string
		dst    *uint64
		lo, hi uint64
	}{
		{"seed", &p.boot.Seed, 0, 1<<64 - 1}, {"units", &p.boot.Limit, 0, 1 << 62},
		{"fill", &p.fill, 1, 100}, {"write", &p.boot.WritePercent, 0, 100},
		{"cold", &p.boot.Cold, 0, 1 << 62}, {"cluster", &p.boot.Cluster, 1, 512},
	} {
		if key != o.key {
			continue
		}
		n, err := strconv.ParseUint(value, 0, 64)
		if err != nil || n < o.lo || n > o.hi {
			return fmt.Errorf("it must be a number from %d to %d", o.lo, o.hi)
		}
		*o.dst = n
		return nil
	}
	switch key {
	case "set":
		n, err := humanize.ParseBytes(value)
		if err == nil && n < pageSize {
			err = fmt.Errorf("it must be at least a page")
		}
		p.set, p.fixed = bytesOrPercent{bytes: n}, true
		return err
	case "period":
		d, err := time.ParseDuration(value)
		if err != nil || d < time.Millisecond || d > time.Hour {
			return fmt.Errorf("it must be a time from 1ms to 1h")
		}
		p.boot.PeriodUS = uint64(d.Microseconds())
		return nil
	}
	return fmt.Errorf("unknown option; the options are:\n%s", Options)
}

// Boot returns the program's parameters for a machine's memory. It fails if the memory is too small.
func (p *Program) Boot(r RAM) (Boot, error) {
	b, d := p.boot, definitions[p.Name]
	if d.bare {
		return b, nil
	}
	if err := b.place(r, p.fill); err != nil {
		return Boot{}, fmt.Errorf("guest program %s: %w", p.Name, err)
	}
	// The set is spread over memory in whole clusters.
	most := b.Pages / b.Cluster * b.Cluster
	b.Set = (p.set.bytes + pageSize - 1) / pageSize
	if p.set.percent > 0 {
		b.Set = max((r.First+r.frames())*p.set.percent/100, 1)
	}
	if b.Set > most {
		if p.fixed {
			return Boot{}, fmt.Errorf("guest program %s: a set of %d pages does not fit into the %d "+
				"that it has", p.Name, b.Set, most)
		}
		b.Set = most
	}
	if b.Set < d.minSet {
		return Boot{}, fmt.Errorf("guest program %s: a set of %d pages is too small; it needs at least %d",
			p.Name, b.Set, d.minSet)
	}
	return b, nil
}
