package learn

import "time"

// The sets that a restore may bring.
const (
	SetOld       = "set"
	SetCandidate = "candidate"
)

// maxHistory bounds the history.
const maxHistory = 128

// An Entry is one line of the history: what one restore has shown.
type Entry struct {
	Restore uint64    `json:"restore"` // its number; 0: no restore, but something that happened to the set
	At      time.Time `json:"at"`
	Set     string    `json:"set"`
	Pages   uint64    `json:"pages"`
	// HeldOut is the sample, Used what was asked for of it; Checked are the others that were left out.
	HeldOut     uint64 `json:"held_out"`
	Used        uint64 `json:"held_out_used"`
	Checked     uint64 `json:"checked"`
	CheckedUsed uint64 `json:"checked_used"`
	Late        uint64 `json:"late"`
	Missed      uint64 `json:"missed"`
	Counted     bool   `json:"counted"`
	Decision    string `json:"decision,omitempty"`
}

// note puts a line at the end of the history.
func (r *Record) note(e Entry) Entry {
	e.At = e.At.UTC().Truncate(time.Second)
	r.History = append(r.History, e)
	if over := len(r.History) - maxHistory; over > 0 {
		r.History = append([]Entry(nil), r.History[over:]...)
	}
	return e
}

// A Quality is how good a set is, as far as restores have shown.
type Quality struct {
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	// Restores is over how many of them.
	Restores int `json:"restores"`
}

// Quality is that of one restore; ok is false if nothing was held out.
func (e Entry) Quality() (q Quality, ok bool) {
	return quality([]Entry{e})
}

// quality sums over restores.
func quality(entries []Entry) (q Quality, ok bool) {
	var held, used, pages, missed float64
	for _, e := range entries {
		if !e.Counted {
			continue
		}
		q.Restores++
		held, used = held+float64(e.HeldOut), used+float64(e.Used)
		pages, missed = pages+float64(e.Pages), missed+float64(e.Missed)
	}
	if held == 0 || used == 0 && missed == 0 {
		return Quality{Restores: q.Restores}, false
	}
	q.Precision = used / held
	q.Recall = q.Precision * pages / (q.Precision*pages + missed)
	return q, true
}

// recent is over how many restores Quality goes at most.
const recent = 16

// Quality is that of the set that the last counted restore brought, over the newest restores of it; ok is
// false if it is not known.
func (r *Record) Quality() (q Quality, ok bool) {
	var of []Entry
	for i := len(r.History) - 1; i >= 0 && len(of) < recent; i-- {
		e := r.History[i]
		if !e.Counted {
			continue
		}
		if len(of) > 0 && (e.Set != of[0].Set || e.Pages != of[0].Pages) {
			continue
		}
		of = append(of, e)
	}
	return quality(of)
}
