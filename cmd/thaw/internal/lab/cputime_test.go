package lab

import (
	"os"
	"testing"
	"time"
)

func TestThreadTimes(t *testing.T) {
	const line = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 0 0 0 12 34 0 0 20 0 1 0 5 6 7 8 9 10 11 " +
		"12 13 14 15 16 17 18 19 20 17 1 0 0 0 56 0 0 0\n"
	kernel, guest, err := threadTimes(line)
	if kernel != 340*time.Millisecond || guest != 560*time.Millisecond || err != nil {
		t.Errorf("%v, %v, %v", kernel, guest, err)
	}
	for _, bad := range []string{"", "7 (a) S 1 2", "7 (a" + line[3:30]} {
		if _, _, err := threadTimes(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// TestVCPUKernelTime: a process without a guest has no vCPUs.
func TestVCPUKernelTime(t *testing.T) {
	if d, err := vcpuKernelTime(os.Getpid()); d != 0 || err != nil {
		t.Errorf("%v, %v", d, err)
	}
}
