package wss

import (
	"io"
	"math"
	"strings"
	"time"
)

// Heat is a picture of a set: which part of each bin of guest memory was touched first in each
// slice of the recording, by source.
type Heat struct {
	Times, Bins int // slices of time; bins of guest memory, from gfn 0 up
	Window      time.Duration
	ImagePages  uint64
	Sources     []Source    // sorted
	Cells       [][]float64 // [source][bin*Times+time], the share of the bin's pages
}

// Heat draws a valid set in so many slices of time and bins of memory; an image of fewer pages has
// a bin a page.
func (s *Set) Heat(times, bins int) Heat {
	times = max(times, 1)
	bins = int(min(uint64(max(bins, 1)), max(s.ImagePages, 1)))
	h := Heat{Times: times, Bins: bins, ImagePages: s.ImagePages, Window: s.Window,
		Sources: s.Sources()}
	for _, r := range s.Runs {
		h.Window = max(h.Window, r.At+1)
	}
	number := map[Source]int{}
	for i, source := range h.Sources {
		number[source] = i
		h.Cells = append(h.Cells, make([]float64, times*bins))
	}
	for _, r := range s.Runs {
		h.add(h.Cells[number[r.Source]], r)
	}
	return h
}

// edge is the first page of a bin. An image has at most 2^40 pages.
func (h Heat) edge(bin int) uint64 { return uint64(bin) * h.ImagePages / uint64(h.Bins) }

func (h Heat) add(cells []float64, r Run) {
	t := min(int(float64(r.At)/float64(h.Window)*float64(h.Times)), h.Times-1)
	// The division rounds edges down, so the bin of a page may be one more than this.
	bin := int(float64(r.GFN) / float64(h.ImagePages) * float64(h.Bins))
	bin = min(bin, h.Bins-1)
	for bin > 0 && h.edge(bin) > r.GFN {
		bin--
	}
	for at := r.GFN; at < r.End(); {
		for h.edge(bin+1) <= at {
			bin++
		}
		end := min(r.End(), h.edge(bin+1))
		cells[bin*h.Times+t] += float64(end-at) / float64(h.edge(bin+1)-h.edge(bin))
		at = end
	}
}

// At is the share of a bin that any source has in a slice of time, of several the greatest.
func (h Heat) At(t, bin int) (share float64) {
	for _, cells := range h.Cells {
		share = max(share, cells[bin*h.Times+t])
	}
	return share
}

// heatLevels is the number of shades above none.
const heatLevels = 4

// level is the shade of a share where top is the greatest; what is not 0 is seen. The square root
// tells apart the many bins of which little was touched.
func level(share, top float64) int {
	if share <= 0 || top <= 0 {
		return 0
	}
	return min(1+int(math.Sqrt(share/top)*heatLevels*0.999), heatLevels)
}

// top is the greatest share of a cell.
func (h Heat) top() (top float64) {
	for _, cells := range h.Cells {
		for _, share := range cells {
			top = max(top, share)
		}
	}
	return top
}

// Rows is the picture in characters: a row a bin, the highest addresses first, time to the right.
func (h Heat) Rows() []string {
	shades := []rune(" ░▒▓█")
	top := h.top()
	rows := make([]string, 0, h.Bins)
	for bin := h.Bins - 1; bin >= 0; bin-- {
		var b strings.Builder
		for t := range h.Times {
			b.WriteRune(shades[level(h.At(t, bin), top)])
		}
		rows = append(rows, b.String())
	}
	return rows
}

// Heats of the figure: cells of 4 by 3 points.
const (
	heatTimes  = 172
	heatBins   = 96
	heatHeight = heatBins*3 + 64 + 44
)

// WriteHeat writes the picture of a valid set as SVG: guest memory upwards, the time of the
// recording to the right, each source in its colour.
func (s *Set) WriteHeat(w io.Writer) error { return s.Heat(heatTimes, heatBins).WriteSVG(w) }

// HeatFigure writes the picture to a file, replacing it in one step.
func (s *Set) HeatFigure(path string) error { return writeFigure(path, s.WriteHeat) }
