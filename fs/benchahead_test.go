package fs

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkColdByNumber goes through a cold image by number, whose clusters are of neighbours or of pages far
// from one another: how fast, the server's processor time, and how often it decodes a cluster.
//
//	go test -run - -bench ColdByNumber -benchtime 3x ./fs
func BenchmarkColdByNumber(b *testing.B) {
	for _, apart := range []bool{false, true} {
		x := spec{Name: "vm", Pages: 1 << 14, Seed: 6, Soft: true, Apart: apart}
		store := coldStore(b, x, allCold)
		all := store.(indexStore).clusters(b, "vm")
		b.Run(fmt.Sprintf("apart=%v", apart), func(b *testing.B) {
			bed := mountedStore(b, store, Options{Policy: PolicyLazy, RecordWindow: time.Nanosecond})
			c := bed.client()
			fd := c.open(bed.path("vm/memory"), unix.O_RDONLY)
			m := c.mapFile(fd, x.Pages)
			var cpu time.Duration
			var clusters uint64
			b.SetBytes(int64(x.Pages * PageSize))
			for b.Loop() {
				if err := bed.Drop(b.Context(), "vm"); err != nil {
					b.Fatal(err)
				}
				before := cpuTime(b)
				clusters += decoded(store, func() {
					c.do(request{Op: "touch", Map: m, GFNs: upTo(x.Pages)})
				})
				cpu += cpuTime(b) - before
			}
			n := float64(b.N)
			b.ReportMetric(cpu.Seconds()*1e3/n, "server-cpu-ms")
			b.ReportMetric(float64(clusters)/n/float64(all), "decodings/cluster")
		})
	}
}
