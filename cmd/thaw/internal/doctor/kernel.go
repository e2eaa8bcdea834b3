package doctor

import (
	"context"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/vmm/trace"
)

func checkKernel(context.Context) Check {
	c := Check{Name: "kernel", Facts: map[string]any{"cpus": runtime.NumCPU()}}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return c.is(Missing, "uname: %v", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	c.Facts["release"], c.Facts["machine"] = release, unix.ByteSliceToString(u.Machine[:])
	var memory uint64 // 0: not known
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		memory = uint64(info.Totalram) * uint64(info.Unit)
	}
	c.Facts["memory_bytes"] = memory
	return c.is(OK, "Linux %s, %s, %d CPUs, %.1f GiB of memory", release, c.Facts["machine"],
		runtime.NumCPU(), float64(memory)/(1<<30))
}

func checkRights(context.Context) Check {
	c := Check{Name: "rights", Without: "mounts go through fusermount3 and are the user's own; " +
		"a VMM of another user needs user_allow_other in /etc/fuse.conf"}
	admin := hasCapability(unix.CAP_SYS_ADMIN)
	c.Facts = map[string]any{"uid": os.Geteuid(), "cap_sys_admin": admin}
	switch {
	case admin && os.Geteuid() == 0:
		return c.is(OK, "root with CAP_SYS_ADMIN")
	case os.Geteuid() == 0:
		return c.is(Limited, "root, but without CAP_SYS_ADMIN (a container?)")
	default:
		return c.is(Limited, "user %d, CAP_SYS_ADMIN: %v", os.Geteuid(), admin)
	}
}

// hasCapability says whether this process has a capability in effect.
func hasCapability(number int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[number/32].Effective&(1<<(number%32)) != 0
}

func checkCachestat(context.Context) Check {
	c := Check{Name: "cachestat", Without: "whether an image is still in the page cache cannot be " +
		"asked: a second open brings its pages again (milliseconds, not microseconds)"}
	// It is allowed only for files that this process may write.
	f, err := os.CreateTemp("", "thaw-doctor-")
	if err != nil {
		return c.is(Missing, "%v", err)
	}
	defer f.Close()
	defer os.Remove(f.Name())
	var st unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &st, 0); err != nil {
		return c.is(Missing, "cachestat(2): %v (Linux 6.5 has it)", err)
	}
	return c.is(OK, "cachestat(2) works")
}

func checkTracepoint(context.Context) Check {
	c := Check{Name: "tracepoint", Without: `"thaw vm checkpoint --trace" takes the order of first ` +
		"touches from scans 10 ms apart, without their vCPU"}
	if err := trace.Probe(); err != nil {
		return c.is(Missing, "%v (it takes root)", err)
	}
	return c.is(OK, "kvmmmu:kvm_mmu_spte_requested, by perf_event_open(2)")
}
