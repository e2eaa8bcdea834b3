package process

import (
	"os"
	"slices"
	"testing"
)

// A user is found by name and by number, with the first group among the groups.
func TestLookupUser(t *testing.T) {
	for _, name := range []string{"root", "0"} {
		u, err := LookupUser(name)
		if err != nil || u.UID != 0 || u.GID != 0 || u.Name != "root" || !slices.Contains(u.Groups, 0) {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
	for _, name := range []string{"", "no-such-user", "4294967290"} {
		if u, err := LookupUser(name); err == nil {
			t.Errorf("%q: %+v", name, u)
		}
	}
}

// Only root becomes somebody else; what a server becomes is tested where it serves (tests/rights).
func TestBecomeNeedsRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("this is root, who could")
	}
	if err := Become(User{Name: "root"}); err == nil {
		t.Error("it has become root")
	}
}
