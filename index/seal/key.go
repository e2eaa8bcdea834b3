package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// KeySize is the size of a Key in bytes.
const KeySize = 32

// Key is a key of a user's, which opens stores. It does not print itself.
type Key struct{ secret [KeySize]byte }

// NewKey makes a random key.
func NewKey() Key {
	var k Key
	_, _ = rand.Read(k.secret[:]) // it never fails: it ends the program instead
	return k
}

// ErrKeyForm is the error for bytes that are no key.
var ErrKeyForm = errors.New("not a key: want 64 hexadecimal digits, or 32 bytes; \"thaw key new\" makes one")

// ParseKey reads a key: 64 hexadecimal digits with blanks around them, or 32 bytes.
func ParseKey(b []byte) (Key, error) {
	if len(b) == KeySize {
		return Key{[KeySize]byte(b)}, nil
	}
	text := bytes.TrimSpace(b)
	var k Key
	if len(text) != hex.EncodedLen(KeySize) {
		return k, ErrKeyForm
	}
	if _, err := hex.Decode(k.secret[:], text); err != nil {
		return Key{}, ErrKeyForm // not its text: that has a part of the key
	}
	return k, nil
}

// Text is the key as a file has it: hexadecimal digits and the end of a line.
func (k Key) Text() []byte { return append(hex.AppendEncode(nil, k.secret[:]), '\n') }

// ID names the key, and tells nothing else of it.
func (k Key) ID() string { return hex.EncodeToString(derive(k.secret[:], nil, "thaw key id 1")[:8]) }

// String names the key, for messages.
func (k Key) String() string { return "key " + k.ID() }

// Format is String for every verb, so that no way of printing shows the secret.
func (k Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.String()) }

// derive makes a key for one purpose of another one.
func derive(secret, salt []byte, purpose string) []byte {
	key, err := hkdf.Key(sha256.New, secret, salt, purpose, KeySize)
	if err != nil {
		panic(err) // only for keys that are much longer
	}
	return key
}
