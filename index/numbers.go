package index

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/thawfs/thaw/index/blob"
)

// numbers hands out the numbers of packs, each of them once: so what is still known of a deleted pack
// can never be taken for another pack. It does not depend on which packs exist.
//
// Numbers are reserved, some at a time, by a blob that is durable before the first of them is used:
// numbers/N says that those below N may be in use. The highest one counts; the others go.
type numbers struct {
	blobs blob.Store
	next  uint64
	bound uint64   // the first number that is not reserved
	old   []uint64 // bounds whose blobs are there
}

const (
	numbersPrefix = "numbers/"
	// numbersStep is how many numbers are reserved at once: most imports need two or three.
	numbersStep = 32
)

func numbersName(bound uint64) string { return fmt.Sprintf("%s%010d", numbersPrefix, bound) }

// open reads which numbers are reserved. used is the highest number of an existing pack, for older
// stores, which have no reservations.
func (n *numbers) open(ctx context.Context, blobs blob.Store, used uint64) error {
	n.blobs, n.next = blobs, used+1
	list, err := blobs.List(ctx, numbersPrefix)
	if err != nil {
		return err
	}
	for _, b := range list {
		bound, err := strconv.ParseUint(strings.TrimPrefix(b.Name, numbersPrefix), 10, 63)
		if err != nil || numbersName(bound) != b.Name {
			continue // not ours
		}
		n.old = append(n.old, bound)
		n.next = max(n.next, bound)
	}
	n.bound = n.next
	return nil
}

// take returns a number that no pack ever had.
func (n *numbers) take(ctx context.Context) (uint64, error) {
	if n.next >= rootNumber {
		return 0, errors.New("no pack numbers are left")
	}
	if n.next >= n.bound {
		if err := n.reserve(ctx); err != nil {
			return 0, fmt.Errorf("reserve pack numbers: %w", err)
		}
	}
	n.next++
	return n.next - 1, nil
}

func (n *numbers) reserve(ctx context.Context) error {
	bound := n.next + numbersStep
	for {
		err := n.write(ctx, bound)
		if err == nil {
			break
		}
		if !errors.Is(err, blob.ErrExists) {
			return err
		}
		// A failed attempt may have left it, and then it may not be durable: reserve a higher one.
		bound++
	}
	old := n.old
	n.bound, n.old = bound, []uint64{bound}
	for _, b := range old {
		if err := n.blobs.Remove(ctx, numbersName(b)); err != nil && !errors.Is(err, blob.ErrNotFound) {
			n.old = append(n.old, b) // tried again with the next
		}
	}
	return nil
}

func (n *numbers) write(ctx context.Context, bound uint64) error {
	w, err := n.blobs.Create(ctx, numbersName(bound))
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := fmt.Fprintf(w, "pack numbers below %d may be in use\n", bound); err != nil {
		return err
	}
	return w.Commit()
}
