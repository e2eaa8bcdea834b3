package wss_test

import (
	"os"
	"time"

	"github.com/thawfs/thaw/wss"
)

// A record made of first touches, written as text.
func ExampleRecorder() {
	r := wss.NewRecorder(wss.RecorderOptions{
		ImagePages: 262_144, Source: wss.SourceRead, Way: "read trace of a lazy restore",
	})
	r.AddRun(1024, 1, 0, wss.NoVCPU)
	r.AddRun(1025, 1, 30*time.Microsecond, wss.NoVCPU)
	r.AddRun(3, 1, 120*time.Microsecond, 0)
	r.AddRun(1024, 1, 200*time.Microsecond, 0) // was touched before
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
