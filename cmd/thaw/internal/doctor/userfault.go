package doctor

import (
	"context"

	"github.com/thawfs/thaw/vmm/ram"
)

func checkUserfaultfd(context.Context) Check {
	c := Check{Name: "userfaultfd", Without: "which prefetched pages a guest of thaw vm used is not " +
		"exact to the page (16 are mapped at a time); changed pages are"}
	if err := ram.ProbeTracker(); err != nil {
		return c.is(Missing, "%v (Linux 6.7 has it)", err)
	}
	return c.is(OK, "touched pages are exact, by asynchronous write-protection")
}
