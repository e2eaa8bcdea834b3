package report

import (
	"strings"
	"testing"
)

func TestAgree(t *testing.T) {
	server := NewTimeline(in(100, 200, 1500, 1600))
	vmm := NewTimeline(in(90, 210, 1500, 1620, 5000, 6000)) // the last lies outside
	got := Agree(vmm, server, 0, 3*sec, sec, Tolerance{PerRequest: 20 * ms, Requests: 2})
	want := Agreement{A: 240 * ms, B: 200 * ms, Difference: 40 * ms,
		Share: 40. / 240, Allowed: 40 * ms, Window: sec, Windows: 3, Mean: 40 * ms / 3,
		Worst: 20 * ms}
	if got != want {
		t.Errorf("%+v", got)
	}
	if !got.OK() || !strings.Contains(got.String(), "within the stated error of 0.04 s") {
		t.Errorf("%v", got)
	}
	got.Allowed--
	if got.OK() || !strings.Contains(got.String(), "beyond") {
		t.Errorf("%v", got)
	}
	none := Agree(NewTimeline(nil), NewTimeline(nil), 0, sec, 0, Tolerance{Share: 0.01})
	if none != (Agreement{}) || !none.OK() {
		t.Errorf("%+v", none)
	}
}
