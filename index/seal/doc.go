// Package seal encrypts a store: what lies on the disk tells nobody without the key what is in it, and a
// byte that was changed, moved or cut off is noticed and never returned.
//
// # Keys
//
// The user has a [Key]: 32 random bytes, in a file or wherever else. It seals nothing itself. A store has a
// data key of its own, which is kept in thaw-store.json, encrypted by the user's key. So a store gets
// another key without one pack being written again, and it can have several keys at a time ([Header]).
//
//	user's key  ->  key of the slot  ->  data key  ->  blobs, names, files, page hashes, index
//
// Each arrow is HKDF-SHA256 with a text that says what the new key is for, but for the second: the slot's
// key unwraps the data key. [Vault] has the keys on the right. What the page hashes of package pack are keyed
// with is one of them, so that a hash tells nothing of a page, and two stores have nothing in common by which
// it would show that they have the same pages: pages are deduplicated within a store only.
//
// # What a sealed store shows
//
// Packs, roots, the index and what restores teach are sealed, names of checkpoints too. Not hidden are: that
// it is a store, its profile, when it was made and how many keys it has; how many packs and checkpoints
// there are, their sizes, their times and generations, and the numbers of packs; how long the name of a
// checkpoint is, in steps of 32 bytes; the IDs of checkpoints that restores taught something (a keyed hash);
// which bytes of a pack are read, and when; where it is mounted and by which process.
//
// Somebody who can write to the store can remove checkpoints, or put older files of it back; nothing here
// shows that. But no byte is returned that was not written under that name into that store.
//
// Machines see their memory in the clear, of course: so do the page cache of the mount, the swap of the
// host, the dumps of crashed processes, and whoever may read the mount. The page cache of packs is sealed.
//
// # The format, version 1
//
// All integers are big endian. AES-256-GCM throughout, with tags of 16 bytes; || joins bytes. E(k) is
// encryption with the key k; its associated data are empty, because all that it would bind is in k.
// derive(k, salt, text) is HKDF-SHA256 of the secret k, extracted with salt and expanded with text, 32 bytes.
//
// thaw-store.json of a sealed store has version 2, no hash_key, and
//
//	"seal": {"cipher": "aes-256-gcm", "keys": [{"id": ..., "created": ..., "salt": ..., "wrapped": ...}]}
//
// id is the user's key's, 16 hexadecimal digits: the first 8 bytes of derive(key, "", "thaw key id 1"). It
// says which key is asked for, and nothing else about it. salt is 32 random bytes, wrapped is
// E(derive(key, salt, "thaw key slot 1")) of the data key D (32 bytes) with a nonce of zeros; both in hex.
//
//	keys of blobs    B = derive(D, "", "thaw blobs 1")
//	keys of names    N = derive(D, "", "thaw names 1"), M = derive(D, "", "thaw name macs 1")
//	page hashes      derive(D, "", "thaw page hashes 1")
//	index            derive(D, "", "thaw index 1"): Badger's encryption key
//
// Blob. Its content is cut into chunks of 4096 bytes, the last one shorter; an empty blob has an empty chunk.
//
//	envelope   40 bytes: "thawseal", salt
//	chunks     each E(derive(B, salt, "thaw blob 1:" || name)) of a chunk, and its tag
//	envelope   the same again, for one of both may be damaged
//
// salt is 32 random bytes, so each blob has a key of its own, each attempt to write it too. name is the
// blob's name in the clear: what is moved to another name, or from another store, is refused. The nonce of a
// chunk is its number in 8 bytes, three bytes of zero, and 1 for the last chunk, else 0: so no nonce is used
// twice with a key, chunks cannot change places, and what is cut off at a chunk is noticed. What has a
// checksum inside (units, directories) keeps it.
//
// A file beside the blobs (thaw's lessons) is sealed as a blob is, with "thaw file 1:" || name.
//
// Name. The last part of the names of roots, padded by 0x80 and zeros to a multiple of 32 bytes, P, becomes
// base64url, without padding, of S || AES-256-CTR(N, S) of P where S = the first 16 bytes of
// HMAC-SHA256(M, P).
// That is deterministic, so that a name can be looked up. Names of packs and of reservations of numbers are
// numbers, and stay.
//
// # What it costs
//
// A pack grows by 0.4 %. A page fault reads one chunk or two where it read one unit, and deciphers them; see
// BenchmarkObject, and the figures in tests/perf.
package seal
