package seal

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Cipher is the only one there is.
const Cipher = "aes-256-gcm"

var (
	// ErrWrongKey is the error for a key that does not open a store.
	ErrWrongKey = errors.New("another key has sealed it")
	// ErrHeader is the error for a Header that is damaged.
	ErrHeader = errors.New("what it has of its keys is damaged")
)

// Header says how a store is sealed: its data key, encrypted by each of the user's keys. It is JSON.
type Header struct {
	Cipher string `json:"cipher"`
	Keys   []Slot `json:"keys"`
}

// Slot is the data key, encrypted by one key.
type Slot struct {
	ID      string    `json:"id"` // the key's
	Created time.Time `json:"created"`
	Salt    string    `json:"salt"`
	Wrapped string    `json:"wrapped"`
}

// New seals a new store with a key.
func New(k Key) (Header, *Vault) {
	data := NewKey()
	h := Header{Cipher: Cipher, Keys: []Slot{wrap(k, data)}}
	return h, newVault(data)
}

func wrap(k, data Key) Slot {
	salt := newSalt()
	aead := newGCM(derive(k.secret[:], salt[:], "thaw key slot 1"))
	return Slot{
		ID: k.ID(), Created: time.Now().UTC().Truncate(time.Second),
		Salt:    hex.EncodeToString(salt[:]),
		Wrapped: hex.EncodeToString(aead.Seal(nil, make([]byte, nonceSize), data.secret[:], nil)),
	}
}

// Open opens the store for a key: ErrWrongKey if it has no slot for it.
func (h Header) Open(k Key) (*Vault, error) {
	data, err := h.unwrap(k)
	if err != nil {
		return nil, err
	}
	return newVault(data), nil
}

func (h Header) unwrap(k Key) (Key, error) {
	if h.Cipher != Cipher || len(h.Keys) == 0 {
		return Key{}, fmt.Errorf("%w: cipher %.20q, %d keys", ErrHeader, h.Cipher, len(h.Keys))
	}
	i := slices.IndexFunc(h.Keys, func(s Slot) bool { return s.ID == k.ID() })
	if i < 0 {
		return Key{}, fmt.Errorf("%w: it wants %s, and %s was given", ErrWrongKey, h.IDs(), k.ID())
	}
	salt, err1 := hex.DecodeString(h.Keys[i].Salt)
	wrapped, err2 := hex.DecodeString(h.Keys[i].Wrapped)
	if err := errors.Join(err1, err2); err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrHeader, err)
	}
	aead := newGCM(derive(k.secret[:], salt, "thaw key slot 1"))
	data, err := aead.Open(nil, make([]byte, nonceSize), wrapped, nil)
	if err != nil || len(data) != KeySize {
		return Key{}, fmt.Errorf("%w: put the file back from a copy", ErrHeader)
	}
	return Key{[KeySize]byte(data)}, nil
}

// IDs names the keys that open the store.
func (h Header) IDs() string {
	ids := make([]string, len(h.Keys))
	for i, s := range h.Keys {
		ids[i] = s.ID
	}
	return strings.Join(ids, " or ")
}

// Add returns a Header that another key opens, too: add, for who has the key k.
func (h Header) Add(k, add Key) (Header, error) {
	data, err := h.unwrap(k)
	if err != nil {
		return h, err
	}
	keys := slices.DeleteFunc(slices.Clone(h.Keys), func(s Slot) bool { return s.ID == add.ID() })
	h.Keys = append(keys, wrap(add, data))
	return h, nil
}

// ErrLastKey is the error for the removal of the only key.
var ErrLastKey = errors.New("it is the only key of the store, which nobody could open without it")

// Remove returns a Header that the key with an ID does not open. It still opens copies of the old one.
func (h Header) Remove(id string) (Header, error) {
	keys := slices.DeleteFunc(slices.Clone(h.Keys), func(s Slot) bool { return s.ID == id })
	switch {
	case len(keys) == len(h.Keys):
		return h, fmt.Errorf("%w: it has the keys %s, and not %.40s", ErrWrongKey, h.IDs(), id)
	case len(keys) == 0:
		return h, ErrLastKey
	}
	h.Keys = keys
	return h, nil
}
