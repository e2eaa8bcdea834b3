package report_test

import (
	"fmt"
	"time"

	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/report"
)

// The worked example of the package's documentation.
func ExampleTTR() {
	ready := time.Second // the prefetch
	stalls := []wss.Interval{{Start: 1500 * time.Millisecond, End: 1800 * time.Millisecond}}
	for _, u := range []float64{0, 0.7, 0.8, 1} {
		ttr, ok := report.TTR(stalls, ready, 10*time.Second, time.Second, u)
		fmt.Printf("u = %3.0f %%: %v %v\n", u*100, ttr, ok)
	}
	fmt.Printf("MMU(1 s) = %.1f\n", report.NewTimeline(stalls).MMU(ready, 10*time.Second, time.Second))
	// Output:
	// u =   0 %: 0s true
	// u =  70 %: 1s true
	// u =  80 %: 1.6s true
	// u = 100 %: 1.8s true
	// MMU(1 s) = 0.7
}
