package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
)

// namePad is what names are filled up to a multiple of, in bytes.
const namePad = 32

// names seals names. It is a synthetic-IV mode: the same name becomes the same sealed one.
type names struct {
	block cipher.Block
	mac   []byte
}

func newNames(key, mac []byte) names {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // keys have 32 bytes
	}
	return names{block, mac}
}

// tag is what proves a padded name, and the counter that it is encrypted with.
func (n names) tag(padded []byte) []byte {
	h := hmac.New(sha256.New, n.mac)
	h.Write(padded)
	return h.Sum(nil)[:aes.BlockSize]
}

func (n names) seal(name string) string {
	padded := append([]byte(name), 0x80)
	padded = append(padded, make([]byte, (namePad-len(padded)%namePad)%namePad)...)
	out := append(n.tag(padded), padded...)
	cipher.NewCTR(n.block, out[:aes.BlockSize]).XORKeyStream(out[aes.BlockSize:], padded)
	return base64.RawURLEncoding.EncodeToString(out)
}

// open is the inverse of seal; ok is false for a name that was not sealed.
func (n names) open(sealed string) (name string, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(sealed)
	if err != nil || len(b) < aes.BlockSize {
		return "", false
	}
	tag, padded := b[:aes.BlockSize], b[aes.BlockSize:]
	cipher.NewCTR(n.block, tag).XORKeyStream(padded, padded)
	if subtle.ConstantTimeCompare(tag, n.tag(padded)) != 1 {
		return "", false
	}
	name = strings.TrimRight(string(padded), "\x00")
	return strings.CutSuffix(name, "\x80")
}
