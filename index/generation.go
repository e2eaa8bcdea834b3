package index

import (
	"context"
	"errors"

	"github.com/thawfs/thaw/index/pack"
)

// renewal is a pack that is being written again, as its next generation.
type renewal struct {
	s      *Store
	number uint64
	// write copies the pack into the next generation.
	write func(old *pack.Reader, w *pack.Writer) error
	// right checks that the new generation, read back, has what it must have.
	right func(old, renewed *pack.Reader) error
}

// run writes the next generation and puts it in the place of the present one. After an error the
// present one is in use as before.
func (n renewal) run(ctx context.Context) (before, after packInfo, err error) {
	before, _ = n.s.packs.info(n.number)
	if after, err = n.copy(ctx); err == nil {
		err = n.s.packs.replace(ctx, n.number, after)
	}
	return before, after, err
}

// copy writes the next generation, and reads back what there is in it.
func (n renewal) copy(ctx context.Context) (info packInfo, err error) {
	old, done, err := n.s.packs.use(ctx, n.number, 0)
	if err != nil {
		return packInfo{}, err
	}
	defer done()
	info.generation = n.s.packs.nextGeneration(n.number)
	bw, err := n.s.blobs.Create(ctx, pack.Name(n.number, info.generation))
	if err != nil {
		return packInfo{}, err
	}
	w, err := pack.NewWriter(bw, n.number, info.generation)
	if err != nil {
		return packInfo{}, errors.Join(err, bw.Abort())
	}
	defer w.Abort()
	if err := n.write(old, w); err != nil {
		return packInfo{}, err
	}
	if info.bytes, err = w.Finish(); err == nil && n.right != nil {
		err = n.readBack(ctx, old, info)
	}
	if err != nil {
		return packInfo{}, errors.Join(err, n.s.packs.abandon(ctx, n.number, info.generation))
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
