package seal

import (
	"crypto/cipher"
	"encoding/binary"
)

// chunkSize is how many bytes are sealed at once. Smaller ones would cost a fault less, and a prefetch more.
const chunkSize = 4096

const sealedChunk = chunkSize + tagSize

const (
	envelopeMagic = "thawseal"
	envelopeSize  = len(envelopeMagic) + saltSize
)

// appendEnvelope writes what is at both ends of a blob.
func appendEnvelope(b []byte, salt [saltSize]byte) []byte {
	return append(append(b, envelopeMagic...), salt[:]...)
}

// parseEnvelope is the inverse of appendEnvelope.
func parseEnvelope(b []byte) (salt [saltSize]byte, ok bool) {
	if len(b) != envelopeSize || string(b[:len(envelopeMagic)]) != envelopeMagic {
		return salt, false
	}
	return [saltSize]byte(b[len(envelopeMagic):]), true
}

// chunksIn is the number of chunks of so many bytes.
func chunksIn(size int64) int64 { return max(1, (size+chunkSize-1)/chunkSize) }

// StoredSize is what so many bytes take when they are sealed.
func StoredSize(size int64) int64 {
	return 2*int64(envelopeSize) + size + chunksIn(size)*tagSize
}

// plainSize is the inverse of StoredSize; ok is false for what nothing sealed has.
func plainSize(stored int64) (size int64, ok bool) {
	body := stored - 2*int64(envelopeSize)
	if body < tagSize {
		return 0, false
	}
	size = body - (body+sealedChunk-1)/sealedChunk*tagSize
	return size, StoredSize(size) == stored
}

// chunks seals the chunks of one blob, in their order.
type chunks struct {
	aead  cipher.AEAD
	next  uint64
	nonce [nonceSize]byte
}

// seal appends the next chunk, sealed.
func (c *chunks) seal(dst, plain []byte, last bool) []byte {
	setNonce(&c.nonce, c.next, last)
	c.next++
	return c.aead.Seal(dst, c.nonce[:], plain, nil)
}

func setNonce(n *[nonceSize]byte, chunk uint64, last bool) {
	*n = [nonceSize]byte{}
	binary.BigEndian.PutUint64(n[:], chunk)
	if last {
		n[nonceSize-1] = 1
	}
}
