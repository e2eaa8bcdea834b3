package wss_test

import (
	"fmt"
	"os"
	"time"

	"github.com/thawfs/thaw/wss"
)

// The worked example of the package's documentation.
func ExampleTTR() {
	ready := time.Second // the prefetch
	stalls := []wss.Interval{{Start: 1500 * time.Millisecond, End: 1800 * time.Millisecond}}
	for _, u := range []float64{0, 0.7, 0.8, 1} {
		ttr, ok := wss.TTR(stalls, ready, 10*time.Second, time.Second, u)
		fmt.Printf("u = %3.0f %%: %v %v\n", u*100, ttr, ok)
	}
	fmt.Printf("MMU(1 s) = %.1f\n", wss.MMU(stalls, ready, 10*time.Second, time.Second))
	// Output:
	// u =   0 %: 0s true
	// u =  70 %: 1s true
	// u =  80 %: 1.6s true
	// u = 100 %: 1.8s true
	// MMU(1 s) = 0.7
}

// A record made of first touches, written as text.
func ExampleRecorder() {
	r := wss.NewRecorder(wss.RecorderOptions{
		ImagePages: 262_144, Source: wss.SourceRead, Way: "read trace of a lazy restore",
	})
	r.Add(1024, 0, wss.NoVCPU)
	r.Add(1025, 30*time.Microsecond, wss.NoVCPU)
	r.Add(3, 120*time.Microsecond, 0)
	r.Add(1024, 200*time.Microsecond, 0) // was touched before
	r.Set(10*time.Second, time.Time{}).WriteTo(os.Stdout)
	// Output:
	// thaw-working-set 1
	// pages 262144
	// window 10s
	// way read trace of a lazy restore
	//
	// 1024 2 0 read
	// 3 1 120 read 0
}
