package index

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/tests/blobtest"
)

// untagged is a blob store that cannot tell a blob from another one that had its name.
type untagged struct{ blob.Store }

func (u untagged) List(ctx context.Context, prefix string) ([]blob.Info, error) {
	list, err := u.Store.List(ctx, prefix)
	for i := range list {
		list[i].Tag = ""
	}
	return list, err
}

// A check of a reader ends, and names the damage once, whether a root is damaged or a pack, and
// whether or not the blobs say which they are.
func TestReaderChecksDamage(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	mem := blobtest.NewMem()
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, mem)
	r := rand.New(rand.NewPCG(41, 1))
	mustImport(t, s, "sound", writeSource(t, randomImage(r, 50).bytes(), nil), nil)
	mustImport(t, s, "damaged", writeSource(t, randomImage(r, 60).bytes(), nil), nil)
	numbers, _ := s.packs.numbers()
	last := pack.Name(numbers[len(numbers)-1], 0)
	s.Close()
	for _, blobName := range []string{rootName("damaged", 0), last} {
		sound := blobtest.Get(t, mem, blobName)
		mem.Replace(blobName, sound[:len(sound)/2])
		for _, blobs := range []blob.Store{mem, untagged{mem}} {
			s := openReader(t, dir, blobs)
			rep, err := s.Check(ctx, CheckOptions{})
			if err != nil {
				t.Fatalf("%s cut, check: %v", blobName, err)
			}
			if len(rep.Lost) != 1 || rep.Lost[0].Checkpoint != "damaged" || rep.Checkpoints != 2 {
				t.Errorf("%s cut: %+v", blobName, rep)
			}
			s.Close()
		}
		mem.Replace(blobName, sound)
	}
}
