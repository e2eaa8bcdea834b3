package seal

import (
	"crypto/cipher"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
)

// fixedKey makes the same key for the same number.
func fixedKey(n byte) Key {
	var k Key
	k.secret[0], k.secret[31] = n, 1
	return k
}

// testVault makes the same vault for the same number.
func testVault(n byte) *Vault { return newVault(fixedKey(n)) }

// content makes so many bytes, the same ones each time.
func content(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// sizes are those around which something changes.
func sizes() []int {
	return []int{0, 1, 15, 16, 17, chunkSize - 1, chunkSize, chunkSize + 1, 2*chunkSize - 1, 2 * chunkSize,
		2*chunkSize + 1, 5*chunkSize + 77, 300_000}
}

// put seals a blob, and returns it as it is stored.
func put(t testing.TB, v *Vault, name string, b []byte) []byte {
	t.Helper()
	inner := blobtest.NewMem()
	blobtest.Put(t, v.Wrap(inner, "none"), name, b)
	return blobtest.Get(t, inner, name)
}

// stored makes a store that has a blob with such stored bytes.
func stored(t testing.TB, v *Vault, name string, b []byte) blob.Store {
	t.Helper()
	inner := blobtest.NewMem()
	blobtest.Put(t, inner, name, b)
	return v.Wrap(inner, "none")
}

// countingAEAD notes which nonces are used to seal with a key.
type countingAEAD struct {
	cipher.AEAD
	key  string
	used *usedNonces
}

type usedNonces struct {
	mu    sync.Mutex
	seals int
	seen  map[string]bool
	twice int
}

func (c countingAEAD) Seal(dst, nonce, plain, data []byte) []byte {
	c.used.mu.Lock()
	defer c.used.mu.Unlock()
	c.used.seals++
	id := c.key + string(nonce)
	if c.used.seen[id] {
		c.used.twice++
	}
	c.used.seen[id] = true
	return c.AEAD.Seal(dst, nonce, plain, data)
}

// countNonces makes a vault count what it seals with.
func countNonces(v *Vault) *usedNonces {
	used := &usedNonces{seen: map[string]bool{}}
	v.aead = func(key []byte) cipher.AEAD { return countingAEAD{newGCM(key), string(key), used} }
	return used
}
