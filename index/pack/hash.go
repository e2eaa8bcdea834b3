package pack

import (
	"crypto/sha256"
	"hash"
)

// HashSize is the size of a Hash, in bytes.
const HashSize = 16

// Hash names the content of a page, or of any other bytes: the same bytes have the same hash, and
// with 128 bits under a secret key nobody can find other bytes that do.
type Hash [HashSize]byte

// HashKey is the key of a store's hashes, chosen at random when the store is made.
type HashKey [32]byte

// Hasher computes hashes under one key: the first 16 bytes of SHA-256 over a block of 64 bytes (the
// key, then zeros) and the content. Content is hashed whole and the hash is cut to half, so the key
// may simply come first. SHA-256 because processors of both architectures have instructions for it:
// where it was measured (BenchmarkHash) it was a little faster than keyed BLAKE3, whose Go library
// has assembly for amd64 only. A Hasher is used by one goroutine.
type Hasher struct {
	h   hash.Hash
	key [sha256.BlockSize]byte
	sum [sha256.Size]byte
}

// NewHasher makes a Hasher.
func NewHasher(key HashKey) *Hasher {
	h := &Hasher{h: sha256.New()}
	copy(h.key[:], key[:])
	return h
}

// Sum returns the hash of b. It does not allocate.
func (h *Hasher) Sum(b []byte) Hash {
	h.h.Reset()
	_, _ = h.h.Write(h.key[:]) // hash.Hash never fails
	_, _ = h.h.Write(b)
	h.h.Sum(h.sum[:0])
	return Hash(h.sum[:HashSize])
}
