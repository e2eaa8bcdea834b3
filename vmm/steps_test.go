package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
)

// stepEnv makes a child of the test binary do one step of a machine.
const stepEnv = "THAW_VMM_TEST_STEP"

// stepJob: restore From (a new machine if it is empty), run to the next sync point, save to To.
type stepJob struct{ From, To string }

// stepResult is what a step prints.
type stepResult struct {
	Point   uint32         // the sync point that was reached
	Changes []state.Change // between the saved state and that of the machine restored from it
}

// tscDeadline is the register of the deadline timer.
const tscDeadline = 0x6e0

// knownState sets what a program in ring 3 cannot set: debug registers, model-specific registers, the
// local APIC. It does not affect the program.
func knownState(k *kvm.VCPU) error {
	d := kvm.DebugRegs{DR6: 0xffff0ff0, DR7: 0x400, DB: [4]uint64{0x1111000, 0x2222000, 0x3333000,
		0x4444000}}
	l, err := k.LAPIC()
	if err != nil {
		return err
	}
	l.SetRegister(0x80, 0x10)
	l.SetRegister(0xa0, 0x10)
	l.SetRegister(0xf0, 0x1ff)
	l.SetRegister(0x320, 2<<17|0xec)                                    // the timer, in deadline mode
	msrs := []kvm.MSREntry{{Index: 0xc0000081, Data: 0x23001000000000}, // STAR
		{Index: 0xc0000082, Data: 0xffffffff81000000}, {Index: 0xc0000084, Data: 0x47700},
		{Index: 0xc0000102, Data: 0xffff888000001000}, {Index: 0x174, Data: 0x10},
		{Index: 0x175, Data: 0xfffffe0000003000}, {Index: 0x176, Data: 0xffffffff81001000},
		{Index: 0x277, Data: 0x407050600070106}, // PAT
		{Index: 0x2ff, Data: 0xc06}, {Index: 0x200, Data: 0xc0000006}, {Index: 0x201, Data: 0x3c0000800},
		{Index: 0x250, Data: 0x0606060606060606},
		{Index: tscDeadline, Data: 1 << 60}, // years ahead
	}
	return errors.Join(k.SetDebugRegs(d), k.SetLAPIC(l), k.SetMSRs(msrs))
}

// stepChild is the child.
func stepChild(job string) error {
	var j stepJob
	if err := json.Unmarshal([]byte(job), &j); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var res stepResult
	var m *Machine
	var err error
	if j.From == "" {
		if m, err = New(Config{Guest: spec("registers"), MemoryBytes: ram.MinMemory, Log: log}); err != nil {
			return err
		}
		c := m.vcpus[0]
		if err := c.Do(func() error { return knownState(c.KVM) }); err != nil {
			return err
		}
	} else if m, res.Changes, err = restoreAndCompare(j.From, log); err != nil {
		return err
	}
	defer m.Close()
	if res.Point, err = toNextPoint(m); err != nil {
		return err
	}
	if _, err := m.Checkpoint(context.Background(), j.To); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(res)
}

// restoreAndCompare reads the state of a restored machine back before it has run.
func restoreAndCompare(dir string, log *slog.Logger) (*Machine, []state.Change, error) {
	want, err := state.Inspect(dir)
	if err != nil {
		return nil, nil, err
	}
	l, err := loadDir(dir, log)
	if err != nil {
		return nil, nil, err
	}
	s, err := l.save()
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	got, err := inspectSaved(s)
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	return l.Machine, state.Diff(want, got), nil
}

// inspectSaved inspects a state that is not in a file.
func inspectSaved(s state.Machine) (_ *state.Inspection, err error) {
	b, _, err := s.Encode(nil)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "state")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.WriteFile(filepath.Join(dir, state.StateFile), b, 0o600); err != nil {
		return nil, err
	}
	return state.Inspect(dir)
}

// fieldOf is a field of a section.
func fieldOf(in *state.Inspection, section, field string) string {
	for _, s := range in.Sections {
		for _, f := range s.Fields {
			if s.Name() == section && f.Name == field {
				return f.Value
			}
		}
	}
	return ""
}

// toNextPoint lets a machine of one vCPU run to its program's next sync point and no further.
func toNextPoint(m *Machine) (uint32, error) {
	reached := make(chan uint32, 1)
	m.ports.sync = func(point uint32) {
		m.vcpus[0].AskToPark()
		reached <- point
	}
	if err := m.Start(); err != nil {
		return 0, err
	}
	select {
	case point := <-reached:
		m.ports.sync = nil
		return point, m.Pause()
	case <-m.ended:
		return 0, fmt.Errorf("the machine ended: %w", m.Wait(context.Background()))
	}
}

// step runs a child.
func step(t *testing.T, j stepJob) (res stepResult) {
	t.Helper()
	job, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), stepEnv+"="+string(job))
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	if err := json.Unmarshal(out, &res); err != nil {
		t.Fatal(err)
	}
	return res
}

// runsOn says whether a field is a clock, which continues while the machine is paused: by at most a
// minute, and never backwards.
func runsOn(c state.Change, khz uint64) bool {
	perSecond := map[string]uint64{"MSRS 0 TSC": khz * 1000, "CLOCK 0 clock": 1e9,
		"CLOCK 0 realtime": 1e9, "CLOCK 0 hosttsc": khz * 1000,
		"PIT2 0 channels[0].countloadtime": 1e9, "PIT2 0 channels[1].countloadtime": 1e9,
		"PIT2 0 channels[2].countloadtime": 1e9}
	speed, ok := perSecond[c.Section+" "+c.Field]
	a, errA := strconv.ParseUint(c.A, 0, 64)
	b, errB := strconv.ParseUint(c.B, 0, 64)
	return ok && errA == nil && errB == nil && b >= a && b-a < 60*speed
}

// The program is saved at each of its sync points, and its process ends. Another process restores it,
// compares the state field by field, and continues it. The program checks all registers itself.
func TestEverySyncPoint(t *testing.T) {
	needKVM(t)
	dir := t.TempDir()
	var from string
	points := []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 5, 6}
	for i, want := range points {
		to := filepath.Join(dir, strconv.Itoa(i))
		res := step(t, stepJob{From: from, To: to})
		if res.Point != want {
			t.Fatalf("step %d ended at sync point %d, want %d", i, res.Point, want)
		}
		in, err := state.Inspect(to)
		if err != nil {
			t.Fatal(err)
		}
		khz, err := strconv.ParseUint(fieldOf(in, "TSCKHZ 0", "value"), 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range res.Changes {
			if !runsOn(c, khz) {
				t.Errorf("before sync point %d: saved and restored state differ: %v", want, c)
			}
		}
		for field, want := range map[string]string{"db[0]": "0x1111000", "db[3]": "0x4444000",
			"dr7": "0x400"} {
			if got := fieldOf(in, "DEBUGREG 0", field); got != want {
				t.Errorf("debug register %s is %s, want %s", field, got, want)
			}
		}
		for field, want := range map[string]string{"STAR": "0x23001000000000",
			"KERNEL_GS_BASE": "0xffff888000001000", "PAT": "0x407050600070106",
			"MTRR_DEF_TYPE": "0xc06", "TSC_DEADLINE": "0x1000000000000000"} {
			if got := fieldOf(in, "MSRS 0", field); got != want {
				t.Errorf("register %s is %s, want %s", field, got, want)
			}
		}
		if err := os.Remove(filepath.Join(to, state.InfoFile)); err != nil {
			t.Fatal(err)
		}
		from = to
	}
}

// Two vCPUs that check each other are saved while both run, and continue correctly after the restore.
func TestTwoVCPUs(t *testing.T) {
	m := newTestMachine(t, spec("pair", "set", "64KiB"), ram.MinMemory)
	runUntil(t, m, 20)
	for generation := range 5 {
		dir := checkpoint(t, m)
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		var changes []state.Change
		var err error
		m, changes, err = restoreAndCompare(dir, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		for _, c := range changes {
			if c.Field == "TSC" || c.Section == "CLOCK 0" || c.Section == "PIT2 0" {
				continue // they run on
			}
			t.Errorf("generation %d: saved and restored state differ: %v", generation, c)
		}
		runUntil(t, m, m.ports.snapshot().Done+20)
	}
	// Neither can continue without the other, so both run.
	if n := m.facts.VCPUs; n != 2 || len(m.vcpus) != 2 {
		t.Errorf("%d vCPUs", n)
	}
}

func TestVCPUCounts(t *testing.T) {
	for program, cpus := range map[string]int{"idle": 2, "pair": 1, "registers": 300} {
		_, err := New(Config{Guest: spec(program), MemoryBytes: ram.MinMemory, CPUs: cpus,
			Log: testLog(t)})
		if err == nil {
			t.Errorf("%s with %d vCPUs was made", program, cpus)
		}
	}
}
