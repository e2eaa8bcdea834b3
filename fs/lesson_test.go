package fs

import (
	"bytes"
	"testing"
)

// Two misses widen the margin, two restores with much to spare narrow it, and one of each is nothing.
func TestLesson(t *testing.T) {
	l := Lesson{}.withDefaults()
	if l.Margin != startMargin {
		t.Fatalf("it begins with %+v", l)
	}
	for i, step := range []struct {
		r    result
		want float64
	}{
		{missed, 0.25}, {met, 0.25}, {missed, 0.5}, // two misses, not in a row
		{spare, 0.5}, {met, 0.5}, {spare, 0.5}, {spare, 0.375}, // two in a row
		{missed, 0.375}, {spare, 0.375}, {missed, 0.375}, {unknown, 0.375}, {missed, 0.75},
	} {
		if l = l.learn(step.r); l.Margin != step.want {
			t.Fatalf("step %d: %+v, want %g", i, l, step.want)
		}
	}
	for range 50 {
		l = l.learn(missed)
	}
	if l.Margin != maxMargin {
		t.Errorf("after many misses: %+v", l)
	}
	for range 50 {
		l = l.learn(spare)
	}
	if l.Margin != minMargin {
		t.Errorf("after many with much to spare: %+v", l)
	}
}

// Whatever a file holds, a lesson is one that restores can teach, or refused.
func FuzzParseLesson(f *testing.F) {
	for _, text := range []string{
		"", "{}", "null", "[]", `{"margin":0.25,"missed":1,"spare":0}`, `{"margin":1e300}`,
		`{"margin":-1}`, `{"margin":0.25,"missed":2}`, `{"margin":0.25,"spare":-1}`, `{"margin":"x"}`,
		`{"margin":0.25} {"margin":0.25}`, `{"margin":0.25,"more":[[[[]]]]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := ParseLesson(text)
		if err != nil {
			if l != (Lesson{}) {
				t.Errorf("refused, and %+v", l)
			}
			return
		}
		if len(text) > MaxLessonText {
			t.Errorf("%d bytes are read", len(text))
		}
		for _, r := range []result{unknown, met, missed, spare} {
			next := l.learn(r)
			if next.Margin < minMargin || next.Margin > maxMargin {
				t.Errorf("%+v teaches %+v", l, next)
			}
			again, err := next.Text()
			if err != nil {
				t.Fatal(err)
			}
			if back, err := ParseLesson(again); err != nil || back != next {
				t.Errorf("%s reads as %+v, %v", bytes.TrimSpace(again), back, err)
			}
		}
	})
}
