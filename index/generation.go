package index

import (
	"context"
	"errors"
	"fmt"

	"github.com/thawfs/thaw/index/pack"
)

// renewal is a pack that is being written again, as its next generation.
type renewal struct {
	s      *Store
	number uint64
	// write copies the pack into the next generation.
	write func(old *pack.Reader, w *pack.Writer) error
	// right says whether the new generation, read back, has what it must have. Nil: it has.
	right func(old, renewed *pack.Reader) error
}

// run writes the next generation and puts it in the place of the present one. After an error the
// present one is in use as before.
func (n renewal) run(ctx context.Context) (before, after packInfo, err error) {
	before, _ = n.s.packs.info(n.number)
	if after, err = n.copy(ctx); err != nil {
		return before, after, err
	}
	// It is there from now on: to stop half way would leave two.
	ctx = context.WithoutCancel(ctx)
	if err = n.s.packs.replace(ctx, n.number, after); err == nil {
		return before, after, nil
	}
	if now, _ := n.s.packs.info(n.number); now != after {
		err = errors.Join(err, n.discard(ctx, after))
	}
	return before, after, err
}

func (n renewal) discard(ctx context.Context, info packInfo) error {
	return n.s.blobs.Remove(ctx, pack.Name(n.number, info.generation))
}

// copy writes the next generation, and reads back what there is in it.
func (n renewal) copy(ctx context.Context) (packInfo, error) {
	e, err := n.s.packs.pin(ctx, n.number)
	if err != nil {
		return packInfo{}, err
	}
	defer n.s.packs.unpin(e)
	p := e.acquire()
	defer p.release()
	info := packInfo{}
	if info.generation, err = n.free(ctx, p.Generation()); err != nil {
		return packInfo{}, err
	}
	bw, err := n.s.blobs.Create(ctx, pack.Name(n.number, info.generation))
	if err != nil {
		return packInfo{}, err
	}
	w, err := pack.NewWriter(bw, n.number, info.generation)
	if err != nil {
		return packInfo{}, errors.Join(err, bw.Abort())
	}
	defer w.Abort()
	if err := n.write(p.Reader, w); err != nil {
		return packInfo{}, err
	}
	if info.bytes, err = w.Finish(); err != nil || n.right == nil {
		return info, err
	}
	if err := n.readBack(ctx, p.Reader, info); err != nil {
		return packInfo{}, errors.Join(err, n.discard(context.WithoutCancel(ctx), info))
	}
	return info, nil
}

func (n renewal) readBack(ctx context.Context, old *pack.Reader, info packInfo) error {
	r, err := n.s.packs.openBlob(ctx, n.number, info.generation)
	if err != nil {
		return err
	}
	defer r.Close()
	return n.right(old, r)
}

// free gives the generation behind all that there are of the pack: a damaged one that is not in use
// may stand behind the present one.
func (n renewal) free(ctx context.Context, present uint32) (uint32, error) {
	list, err := n.s.blobs.List(ctx, fmt.Sprintf("%s%010d.", pack.Prefix, n.number))
	if err != nil {
		return 0, err
	}
	last := present
	for _, b := range list {
		if number, g, ok := pack.ParseName(b.Name); ok && number == n.number {
			last = max(last, g)
		}
	}
	return last + 1, nil
}
