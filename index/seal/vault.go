package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"sync"

	"github.com/thawfs/thaw/index/blob"
)

// Vault seals and opens what a store has. It may be used by many goroutines at once.
type Vault struct {
	blobs  []byte // secret of the keys of blobs
	names  names
	hashes [KeySize]byte
	index  []byte

	aead    func(key []byte) cipher.AEAD // newGCM; tests count what it is used for
	scratch sync.Pool                    // of *scratch
}

func newVault(data Key) *Vault {
	purpose := func(text string) []byte { return derive(data.secret[:], nil, text) }
	v := &Vault{
		blobs:  purpose("thaw blobs 1"),
		names:  newNames(purpose("thaw names 1"), purpose("thaw name macs 1")),
		hashes: [KeySize]byte(purpose("thaw page hashes 1")),
		index:  purpose("thaw index 1"),
		aead:   newGCM,
	}
	v.scratch.New = func() any { return new(scratch) }
	return v
}

// HashKey is what page hashes of the store are keyed with.
func (v *Vault) HashKey() [KeySize]byte { return v.hashes }

// IndexKey is what the index on disk is encrypted with.
func (v *Vault) IndexKey() []byte { return v.index }

// Purposes of keys of blobs.
const (
	forBlob = "thaw blob 1:"
	forFile = "thaw file 1:"
)

// key is the cipher of one blob.
func (v *Vault) key(salt [saltSize]byte, purpose, name string) cipher.AEAD {
	return v.aead(derive(v.blobs, salt[:], purpose+name))
}

// SealFile seals a small file that has a name.
func (v *Vault) SealFile(name string, content []byte) []byte {
	salt := newSalt()
	out := appendEnvelope(make([]byte, 0, StoredSize(int64(len(content)))), salt)
	c := chunks{aead: v.key(salt, forFile, name)}
	for len(content) > chunkSize {
		out = c.seal(out, content[:chunkSize], false)
		content = content[chunkSize:]
	}
	return appendEnvelope(c.seal(out, content, true), salt)
}

// OpenFile is the inverse of SealFile: blob.ErrDamaged if it is not what was sealed under that name.
func (v *Vault) OpenFile(name string, stored []byte) ([]byte, error) {
	size, ok := plainSize(int64(len(stored)))
	if !ok {
		return nil, damaged(name, "it is too short, or not sealed")
	}
	o := object{v: v, Object: &memory{stored}, name: name, size: size}
	if err := o.unlock(forFile); err != nil {
		return nil, err
	}
	content := make([]byte, size)
	_, err := o.ReadAt(content, 0)
	return content, err
}

// damaged is the error for bytes that were not sealed as they are, or not there.
func damaged(name, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s", name, blob.ErrDamaged, fmt.Sprintf(format, args...))
}

const (
	nonceSize = 12
	tagSize   = 16
	saltSize  = 32
)

func newSalt() (salt [saltSize]byte) {
	_, _ = rand.Read(salt[:]) // it never fails: it ends the program instead
	return salt
}

func newGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // keys have 32 bytes
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has blocks of 16 bytes
	}
	return aead
}
