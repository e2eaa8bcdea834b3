package doctor

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/thawfs/thaw/vmm/kvm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Whatever host this is: every check has an answer, what is not ok says what thaw does without, and
// nothing stays behind.
func TestRun(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	report := Run(t.Context())
	if len(report.Checks) != 11 {
		t.Errorf("%d checks", len(report.Checks))
	}
	usable, names := true, map[string]bool{}
	for _, c := range report.Checks {
		switch c.Status {
		case OK:
			if c.Without != "" {
				t.Errorf("%s is ok, but: %s", c.Name, c.Without)
			}
		case Limited, Missing:
			if c.Without == "" {
				t.Errorf("%s is %s: what does thaw do without?", c.Name, c.Status)
			}
		case Unknown:
		default:
			t.Errorf("%s: status %q", c.Name, c.Status)
		}
		if c.Found == "" || names[c.Name] {
			t.Errorf("check %q: found %q", c.Name, c.Found)
		}
		names[c.Name] = true
		usable = usable && !(c.Needed && c.Status == Missing)
		t.Logf("%-8s %-14s %s", c.Status, c.Name, c.Found)
	}
	if usable != report.Usable {
		t.Errorf("usable: %v", report.Usable)
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), "thaw-doctor") {
		t.Errorf("a mount was left behind (%v)", err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if report := Run(ctx); len(report.Checks) != 0 {
		t.Errorf("%d checks", len(report.Checks))
	}
}

func TestRunGuest(t *testing.T) {
	switch err := runGuest(t.Context()); {
	case errors.Is(err, kvm.ErrUnavailable):
		t.Skip("needs /dev/kvm: ", err)
	case err != nil:
		t.Error(err)
	}
}
