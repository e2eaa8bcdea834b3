package seal

import (
	"crypto/cipher"
	"fmt"
	"io"

	"github.com/thawfs/thaw/index/blob"
)

// maxStep bounds one read of the blob below, in bytes: it is the memory that a read of any size takes.
const maxStep = 4 << 20

// scratch is memory of a read.
type scratch struct {
	nonce [nonceSize]byte
	in    []byte
}

// object is an open blob. The one below is closed with it.
type object struct {
	blob.Object
	v    *Vault
	name string
	size int64
	aead cipher.AEAD
}

var _ blob.Describer = (*object)(nil)

// Size implements blob.Object.
func (o *object) Size() int64 { return o.size }

// Medium implements blob.Describer.
func (o *object) Medium() blob.Medium { return blob.MediumOf(o.Object) }

// unlock finds the key of the blob. The last chunk proves it, and that the blob is there to its end.
func (o *object) unlock(purpose string) error {
	last := chunksIn(o.size) - 1
	tail := make([]byte, o.size-last*chunkSize+tagSize+int64(envelopeSize))
	if err := o.below(tail, o.Object.Size()-int64(len(tail))); err != nil {
		return err
	}
	var nonce [nonceSize]byte
	setNonce(&nonce, uint64(last), true)
	chunk, envelope := tail[:len(tail)-envelopeSize], tail[len(tail)-envelopeSize:]
	for range 2 {
		if salt, ok := parseEnvelope(envelope); ok {
			o.aead = o.v.key(salt, purpose, o.name)
			if _, err := o.aead.Open(nil, nonce[:], chunk, nil); err == nil {
				return nil
			}
		}
		// Perhaps only that copy is damaged.
		if err := o.below(envelope, 0); err != nil {
			return err
		}
	}
	return damaged(o.name, "it was cut off, changed, or sealed as something else")
}

// below reads bytes of the blob below.
func (o *object) below(b []byte, off int64) error {
	n, err := o.Object.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// ReadAt implements blob.Object. It allocates nothing for reads up to those that it has done before.
func (o *object) ReadAt(p []byte, off int64) (done int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("%s: read at %d", o.name, off)
	}
	want := p[:max(0, min(int64(len(p)), o.size-off))]
	s := o.v.scratch.Get().(*scratch)
	defer o.v.scratch.Put(s)
	for done < len(want) {
		first := (off + int64(done)) / chunkSize
		end := min((off+int64(len(want))-1)/chunkSize+1, first+maxStep/sealedChunk)
		n, err := o.read(s, want[done:], off+int64(done), first, end)
		done += n
		if err != nil {
			return done, err
		}
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// read reads the chunks from first to before end, which p at off begins in, and copies what p takes of them.
func (o *object) read(s *scratch, p []byte, off, first, end int64) (done int, err error) {
	n := min(end*chunkSize, o.size) - first*chunkSize + (end-first)*tagSize
	if int64(cap(s.in)) < n {
		s.in = make([]byte, n)
	}
	in := s.in[:n]
	if err := o.below(in, int64(envelopeSize)+first*sealedChunk); err != nil {
		return 0, err
	}
	skip := int(off - first*chunkSize)
	for i := first; i < end; i++ {
		sealed := in[:min(len(in), sealedChunk)]
		in = in[len(sealed):]
		setNonce(&s.nonce, uint64(i), (i+1)*chunkSize >= o.size)
		plain := sealed[:0]
		whole := skip == 0 && len(p)-done >= len(sealed)-tagSize
		if whole {
			plain = p[done : done : done+len(sealed)-tagSize]
		}
		if plain, err = o.aead.Open(plain, s.nonce[:], sealed, nil); err != nil {
			return done, damaged(o.name, "its bytes from %d on do not match their seal", i*chunkSize)
		}
		if whole {
			done += len(plain)
		} else {
			done += copy(p[done:], plain[skip:])
		}
		skip = 0
	}
	return done, nil
}

// memory is a blob in memory.
type memory struct{ b []byte }

func (m *memory) Size() int64  { return int64(len(m.b)) }
func (m *memory) Close() error { return nil }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(m.b)) {
		return 0, io.EOF
	}
	n := copy(p, m.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
