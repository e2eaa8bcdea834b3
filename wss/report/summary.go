package report

import (
	"cmp"
	"slices"

	"github.com/thawfs/thaw/wss"
)

// SummaryBins is the number of bins that Summary.Where and Summary.When have.
const SummaryBins = 64

// Summary is what there is to say of a set in a few lines.
type Summary struct {
	ImagePages uint64  `json:"image_pages"`
	Pages      uint64  `json:"pages"` // distinct
	Bytes      int64   `json:"bytes"`
	Share      float64 `json:"share"` // of the image
	Runs       int     `json:"runs"`
	// RunP50, RunP90 and RunMax are lengths of runs in pages.
	RunP50  uint64          `json:"run_pages_p50"`
	RunP90  uint64          `json:"run_pages_p90"`
	RunMax  uint64          `json:"run_pages_max"`
	Sources []SourceSummary `json:"sources"`
	// T50, T90 and T100 are the times by which that share of the pages had been touched, in seconds.
	T50  float64 `json:"seconds_p50"`
	T90  float64 `json:"seconds_p90"`
	T100 float64 `json:"seconds_max"`
	// Where is the share of each SummaryBins-th of the image that is in the set; an image of fewer
	// pages has a bin a page.
	Where []float64 `json:"where"`
	// When is the share of the set that was touched in each SummaryBins-th of the window.
	When []float64 `json:"when"`
}

// SourceSummary is one source of a set.
type SourceSummary struct {
	Source wss.Source `json:"source"`
	Pages  uint64     `json:"pages"`
	Runs   int        `json:"runs"`
	VCPUs  []int      `json:"vcpus"` // that are known, ascending
}

// Summarize describes a valid set. Times are those of all sources together: a page that two sources
// name counts twice there.
func Summarize(s *wss.Set) Summary {
	m := Summary{
		ImagePages: s.ImagePages, Pages: s.Pages(), Bytes: s.Bytes(), Runs: len(s.Runs),
		Where: where(s), When: make([]float64, SummaryBins), Sources: sources(s),
	}
	m.Share = float64(m.Pages) / float64(s.ImagePages)
	if len(s.Runs) == 0 {
		return m
	}
	lengths := make([]uint64, len(s.Runs))
	for i, r := range s.Runs {
		lengths[i] = r.Count
	}
	slices.Sort(lengths)
	last := len(lengths) - 1
	m.RunP50, m.RunP90, m.RunMax = lengths[last/2], lengths[last*9/10], lengths[last]
	m.times(s)
	return m
}

// times fills in when the pages were touched.
func (m *Summary) times(s *wss.Set) {
	byTime := make([]int32, len(s.Runs)) // numbers of runs: a set may have millions of them
	for i := range byTime {
		byTime[i] = int32(i)
	}
	slices.SortFunc(byTime, func(a, b int32) int { return cmp.Compare(s.Runs[a].At, s.Runs[b].At) })
	var total, seen uint64
	for _, r := range s.Runs {
		total += r.Count
	}
	end := s.Runs[byTime[len(byTime)-1]].At
	window := max(s.Window, end+1)
	for _, i := range byTime {
		r := s.Runs[i]
		bin := int(float64(r.At) / float64(window) * SummaryBins)
		m.When[min(bin, SummaryBins-1)] += float64(r.Count) / float64(total)
		if seen*2 < total {
			m.T50 = r.At.Seconds()
		}
		if seen*10 < total*9 {
			m.T90 = r.At.Seconds()
		}
		seen += r.Count
	}
	m.T100 = end.Seconds()
}

// sources describes each source.
func sources(s *wss.Set) []SourceSummary {
	all := []SourceSummary{}
	for _, source := range s.Sources() {
		one := SourceSummary{Source: source, VCPUs: []int{}}
		seen := map[int]bool{wss.NoVCPU: true}
		for _, r := range s.Runs {
			if r.Source != source {
				continue
			}
			one.Pages += r.Count
			one.Runs++
			if !seen[r.VCPU] {
				seen[r.VCPU] = true
				one.VCPUs = append(one.VCPUs, r.VCPU)
			}
		}
		slices.Sort(one.VCPUs)
		all = append(all, one)
	}
	return all
}

// where fills the bins of the image.
func where(s *wss.Set) []float64 {
	bins := min(SummaryBins, s.ImagePages)
	edge := func(bin uint64) uint64 { // first page of a bin; ImagePages is at most 2^40
		return bin * s.ImagePages / bins
	}
	where := make([]float64, bins)
	bin := uint64(0)
	for first, count := range s.Ascending() {
		for count > 0 {
			for first >= edge(bin+1) {
				bin++
			}
			n := min(count, edge(bin+1)-first)
			where[bin] += float64(n) / float64(edge(bin+1)-edge(bin))
			first, count = first+n, count-n
		}
	}
	return where
}
