package fs

import (
	"encoding/json"
	"fmt"
)

// A Lesson is what earlier restores of an image have taught about the head start that its machine needs.
type Lesson struct {
	// Margin is by how much longer than measured the rest of the working set is expected to take: 0.25
	// is a quarter. It is never less than 0.1 and never more than 4.
	Margin float64 `json:"margin"`
	// Missed counts restores in which pages came late, and Spare those in which all had come long before
	// they were wanted, since the margin changed or the opposite was seen.
	Missed int `json:"missed"`
	Spare  int `json:"spare"`
}

// Lessons keep what restores have taught beyond the life of a server, by the ID of the checkpoint. They
// are hints: one that is lost or wrong costs time, never a page. Methods are called from many goroutines.
type Lessons interface {
	// Load returns the zero Lesson if there is none.
	Load(id string) (Lesson, error)
	Save(id string, l Lesson) error
}

const (
	startMargin = 0.25
	minMargin   = 0.1
	maxMargin   = 4
	// lessonsToChange is how many restores must agree before the margin changes.
	lessonsToChange = 2
	// grow and shrink are what a margin is multiplied by.
	growMargin, shrinkMargin = 2, 0.75
	// lateShare: of so many pages that follow the guest one may be late.
	lateShare = 64
	// spareRoom: a margin so many times the present one would have been enough, too.
	spareRoom = 4
)

// A result is what one restore shows about its plan.
type result int

const (
	unknown result = iota // nothing was left to come when the machine began to run
	met
	missed
	spare
)

// withDefaults makes a lesson out of the zero Lesson.
func (l Lesson) withDefaults() Lesson {
	if l.Margin == 0 {
		l.Margin = startMargin
	}
	return l
}

// learn is the lesson after one more restore.
func (l Lesson) learn(r result) Lesson {
	switch r {
	case missed:
		l.Missed, l.Spare = l.Missed+1, 0
	case spare:
		l.Missed, l.Spare = 0, l.Spare+1
	case met:
		l.Spare = 0
	}
	switch {
	case l.Missed >= lessonsToChange:
		return Lesson{Margin: min(l.Margin*growMargin, maxMargin)}
	case l.Spare >= lessonsToChange:
		return Lesson{Margin: max(l.Margin*shrinkMargin, minMargin)}
	}
	return l
}

// MaxLessonText bounds the text of a lesson, in bytes.
const MaxLessonText = 512

// ParseLesson reads what Text has written, and refuses everything that learning cannot lead to.
func ParseLesson(text []byte) (Lesson, error) {
	var l Lesson
	if len(text) > MaxLessonText {
		return l, fmt.Errorf("a lesson of %d bytes, at most %d can be", len(text), MaxLessonText)
	}
	if err := json.Unmarshal(text, &l); err != nil {
		return Lesson{}, fmt.Errorf("a lesson: %w", err)
	}
	if !(l.Margin >= minMargin && l.Margin <= maxMargin) || l.Missed < 0 || l.Spare < 0 ||
		l.Missed >= lessonsToChange || l.Spare >= lessonsToChange {
		return Lesson{}, fmt.Errorf("a lesson that no restore teaches: %+v", l)
	}
	return l, nil
}

// Text is the lesson as JSON, in one line.
func (l Lesson) Text() ([]byte, error) {
	text, err := json.Marshal(l)
	return append(text, '\n'), err
}
