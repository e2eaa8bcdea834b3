package pack

import "github.com/zeebo/blake3"

// HashSize is the size of a Hash, in bytes.
const HashSize = 16

// Hash names the content of a page, or of any other bytes: the same bytes have the same hash, and
// with 128 bits under a secret key nobody finds two others that do.
type Hash [HashSize]byte

// HashKey is the key of a store's hashes, chosen at random when the store is made.
type HashKey [32]byte

// Hasher computes hashes under one key. It is used by one goroutine.
type Hasher struct {
	h   *blake3.Hasher
	sum [32]byte
}

// NewHasher makes a Hasher.
func NewHasher(key HashKey) *Hasher {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic("pack: BLAKE3 refuses a key of 32 bytes: " + err.Error())
	}
	return &Hasher{h: h}
}

// Sum gives the hash of b. It does not allocate.
func (h *Hasher) Sum(b []byte) Hash {
	h.h.Reset()
	_, _ = h.h.Write(b) // never fails
	h.h.Sum(h.sum[:0])
	return Hash(h.sum[:HashSize])
}
