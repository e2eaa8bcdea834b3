package fs

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The first touch of some pages, at random, of an image that is cold as a whole: one of so many pages is
// touched. What a push beside a READ costs is seen against "none", which is without pushes.
func BenchmarkColdFault(b *testing.B) {
	x := spec{Name: "vm", Pages: benchPages, Seed: 6, Soft: true}
	store := coldStore(b, x, allCold)
	for _, one := range []uint64{64, 16, 4} {
		for _, none := range []bool{false, true} {
			what := map[bool]string{false: "pushed", true: "none"}[none]
			b.Run(fmt.Sprintf("%d/%s", one, what), func(b *testing.B) {
				o := Options{Policy: PolicyLazy, RecordWindow: time.Nanosecond, NoPush: none}
				bed := mountedStore(b, store, o)
				c := bed.client()
				fd := c.open(bed.path("vm/memory"), unix.O_RDONLY)
				gfns := shuffled(rand.New(rand.NewPCG(1, one)), x.Pages)[:x.Pages/one]
				var took []int64
				var cpu time.Duration
				var reads, pushed uint64
				for b.Loop() {
					if err := bed.Drop(b.Context(), "vm"); err != nil {
						b.Fatal(err)
					}
					before := cpuTime(b)
					took = append(took, c.do(request{
						Op: "faults", FD: fd, Len: int(x.Pages * PageSize), GFNs: gfns,
					}).NS...)
					cpu += cpuTime(b) - before
					st := bed.stats("vm", "")
					reads, pushed = reads+st.LazyRequests, pushed+st.PushedPages
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-us")
				b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-us")
				b.ReportMetric(mean(took)/1e3, "mean-us")
				b.ReportMetric(float64(cpu.Nanoseconds())/1e3/float64(len(took)), "server-cpu-us/touch")
				b.ReportMetric(float64(reads)/float64(b.N), "READs")
				b.ReportMetric(float64(pushed)/float64(b.N), "pushed")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func mean(ns []int64) float64 {
	sum := int64(0)
	for _, n := range ns {
		sum += n
	}
	return float64(sum) / float64(len(ns))
}
