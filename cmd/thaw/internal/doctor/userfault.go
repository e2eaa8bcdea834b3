package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Features of userfaultfd, from linux/userfaultfd.h.
var uffdFeatures = []struct {
	bit  uint64
	name string
}{
	{1 << 0, "pagefault_flag_wp"},
	{1 << 4, "missing_hugetlbfs"},
	{1 << 5, "missing_shmem"},
	{1 << 8, "thread_id"},
	{1 << 9, "minor_hugetlbfs"},
	{1 << 10, "minor_shmem"},
	{1 << 11, "exact_address"},
	{1 << 12, "wp_hugetlbfs_shmem"},
	{uffdWPUnpopulated, "wp_unpopulated"},
	{1 << 14, "poison"},
	{uffdWPAsync, "wp_async"},
	{1 << 16, "move"},
}

const (
	uffdWPUnpopulated = 1 << 13
	uffdWPAsync       = 1 << 15
)

func checkUserfaultfd(context.Context) Check {
	c := Check{Name: "userfaultfd", Without: "which prefetched pages a guest of thaw vm used is not " +
		"exact to the page (16 are mapped at a time); changed pages are"}
	fd, how, err := openUserfaultfd()
	if err != nil {
		return c.missing("%v", err)
	}
	defer unix.Close(fd)
	offered, err := uffdOffers(fd)
	if err != nil {
		return c.missing("UFFDIO_API: %v", err)
	}
	var names []string
	for _, f := range uffdFeatures {
		if offered&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	c.Facts = map[string]any{"features": names, "flags": fmt.Sprintf("%#x", offered), "how": how}
	if offered&uffdWPAsync == 0 || offered&uffdWPUnpopulated == 0 {
		return c.limited("%s, without asynchronous write-protection (Linux 6.7 has it)", how)
	}
	return c.ok("%s, with asynchronous write-protection; %s", how, strings.Join(names, " "))
}

// openUserfaultfd opens one as a VMM would: of faults in user mode only, which needs no right.
func openUserfaultfd() (fd int, how string, err error) {
	const userModeOnly = 1
	if fd, err = userfaultfd(unix.O_CLOEXEC | unix.O_NONBLOCK); err == nil {
		return fd, "faults of user and kernel mode", nil
	}
	if fd, err = userfaultfd(unix.O_CLOEXEC | unix.O_NONBLOCK | userModeOnly); err == nil {
		return fd, "faults of user mode only", nil
	}
	return 0, "", fmt.Errorf("userfaultfd(2): %w", err)
}

func checkPagemapScan(context.Context) Check {
	c := Check{Name: "pagemap_scan",
		Without: "page tables are read through /proc/self/pagemap, some milliseconds a GiB"}
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return c.missing("%v", err)
	}
	defer f.Close()
	switch err := scanOwnPage(int(f.Fd())); {
	case errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL):
		return c.missing("ioctl(PAGEMAP_SCAN): %v (Linux 6.7 has it)", err)
	case err != nil:
		return c.missing("ioctl(PAGEMAP_SCAN): %v", err)
	}
	return c.ok("ioctl(PAGEMAP_SCAN) works")
}
