package index

import (
	"context"
	"errors"

	"github.com/thawfs/thaw/index/pack"
)

// renew writes a pack again, as its next generation, and puts that in the place of the present one. write
// copies the pack; right checks that the new generation, read back, has what it must have. After an error
// the present one is in use as before.
func (s *Store) renew(ctx context.Context, number uint64, write func(old *pack.Reader, w *pack.Writer) error,
	right func(old, renewed *pack.Reader) error) (before, after packInfo, err error) {
	before, _ = s.packs.info(number)
	old, done, err := s.packs.use(ctx, number, 0)
	if err != nil {
		return before, after, err
	}
	after.generation = s.packs.nextGeneration(number)
	after.bytes, err = s.writeGeneration(ctx, old, after.generation, write, right)
	done()
	if err == nil {
		err = s.packs.replace(ctx, number, after)
	}
	return before, after, err
}

// writeGeneration writes the next generation of a pack, and reads back what there is in it.
func (s *Store) writeGeneration(ctx context.Context, old *pack.Reader, generation uint32,
	write func(old *pack.Reader, w *pack.Writer) error, right func(old, renewed *pack.Reader) error) (
	size int64, err error,
) {
	number := old.Number()
	w, err := newPackBlob(ctx, s.blobs, pack.Name(number, generation), number, generation)
	if err != nil {
		return 0, err
	}
	defer w.Abort()
	if err := write(old, w); err != nil {
		return 0, err
	}
	if size, err = w.Finish(); err == nil {
		var renewed *pack.Reader
		if renewed, err = s.packs.openBlob(ctx, number, generation); err == nil {
			err = right(old, renewed)
			renewed.Close()
		}
	}
	if err != nil {
		return 0, errors.Join(err, s.packs.abandon(ctx, number, generation))
	}
	return size, nil
}
