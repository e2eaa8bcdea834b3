package report

import (
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/thawfs/thaw/wss"
)

// Matrix is how much each of some sets has in common with each.
type Matrix struct {
	Names    []string        `json:"names"`
	Overlaps [][]wss.Overlap `json:"overlaps"` // [i][j]: of i as A and j as B
}

// NewMatrix compares valid sets; they have the names.
func NewMatrix(names []string, sets []*wss.Set) Matrix {
	m := Matrix{names, make([][]wss.Overlap, len(sets))}
	for i, a := range sets {
		m.Overlaps[i] = make([]wss.Overlap, len(sets))
		for j, b := range sets[:i] {
			o := a.Overlap(b)
			m.Overlaps[i][j], m.Overlaps[j][i] = o, wss.Overlap{A: o.B, B: o.A, Both: o.Both}
		}
		pages := a.Pages()
		m.Overlaps[i][i] = wss.Overlap{A: pages, B: pages, Both: pages}
	}
	return m
}

// SourceMatrix compares the sources of one set.
func SourceMatrix(s *wss.Set) Matrix {
	var names []string
	var sets []*wss.Set
	for _, source := range s.Sources() {
		names, sets = append(names, string(source)), append(sets, s.Only(source))
	}
	return NewMatrix(names, sets)
}

// Rows is the matrix as a table of Jaccard's measure in percent, the share of the pages of either
// set that both have; its first row and column are the names, its last column the pages of a set.
func (m Matrix) Rows() [][]string {
	rows := [][]string{append(append([]string{""}, m.Names...), "pages")}
	for i, name := range m.Names {
		row := []string{name}
		for j := range m.Names {
			row = append(row, jaccard(m.Overlaps[i][j]))
		}
		rows = append(rows, append(row, strconv.FormatUint(m.Overlaps[i][i].A, 10)))
	}
	return rows
}

func jaccard(o wss.Overlap) string {
	j := o.Jaccard()
	if math.IsNaN(j) {
		return "n/a"
	}
	return strconv.FormatFloat(j*100, 'f', 1, 64) + " %"
}

// WriteText prints Rows.
func (m Matrix) WriteText(w io.Writer) error {
	var b strings.Builder
	writeRows(&b, m.Rows())
	_, err := io.WriteString(w, b.String())
	return err
}
