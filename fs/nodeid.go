package fs

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A nodeKind is what a node of the tree is. The values go into node numbers: they are never
// changed.
type nodeKind uint8

const (
	kindRoot       nodeKind = iota
	kindCheckpoint          // NAME
	kindMemory              // NAME/memory
	kindFile                // state, working-set and other files, stored as they are
	kindInfo                // info.json
	kindStats               // stats.json
	kindClones              // NAME/clones
	kindClone               // NAME/clones/ID
	kindCloneMem            // NAME/clones/ID/memory
	kindCloneStats          // NAME/clones/ID/stats.json
	kindControl             // .thaw
	kindMetrics             // .thaw/metrics
	kindSocket              // .thaw/socket
	kindComposed            // files that are made of memory and stored files
)

// nodeID computes a node's number from what the node is: the same content has the same number in
// every server and after every restart, new content under an old name has a new one. That is what
// lets another process take over a connection whose kernel half goes on asking by number.
//
// try is for the case that two different nodes got the same 64 bits: the table then asks for the
// next number in a fixed sequence.
func nodeID(kind nodeKind, checkpoint, detail string, try int) uint64 {
	h := sha256.New()
	var head [10]byte
	head[0] = byte(kind)
	head[1] = byte(try)
	binary.LittleEndian.PutUint64(head[2:], uint64(len(checkpoint)))
	h.Write(head[:])
	h.Write([]byte(checkpoint))
	h.Write([]byte(detail))
	id := binary.LittleEndian.Uint64(h.Sum(nil))
	// Zero means "no such entry" to the kernel, 1 is the root, all ones is go-fuse's own.
	if id <= fuse.FUSE_ROOT_ID || id == ^uint64(0) {
		return nodeID(kind, checkpoint, detail, try+1)
	}
	return id
}
