package fs

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Rights say who may read the checkpoints of a mount besides the user who serves it and, once anybody
// else is let in, root. The zero value: nobody. The kernel goes by them (default_permissions), for names,
// attributes and opens alike; what is open or mapped stays so.
type Rights struct {
	// Others lets all users in.
	Others bool
	// Users and Groups let in these, also members for whom the group is a supplementary one. The kernel
	// gets them as access control lists.
	Users, Groups []uint32
	// UID and GID are whose the files are shown to be. nil: those of the server.
	UID, GID *uint32
	// Mode are the permissions of files, of 0444; directories may be entered by who may read them. nil:
	// what Others ask for, and if there is a GID, those of its group, too.
	Mode *uint32
}

// Shared says whether anybody but the server's user is let in, so that the kernel must be told to let all
// requests come as far as the modes and lists.
func (r Rights) Shared() bool {
	return r.Others || len(r.Users)+len(r.Groups) > 0 || r.UID != nil || r.GID != nil || r.Mode != nil
}

// perm are the permissions of files without lists.
func (r Rights) perm() uint32 {
	perm := uint32(0o400)
	switch {
	case r.Mode != nil:
		return *r.Mode & 0o444
	case r.Others:
		perm = 0o444
	case r.GID != nil:
		perm = 0o440
	}
	return perm
}

// A guard is what the server tells the kernel of its Rights.
type guard struct {
	server fuse.Owner // whose the control files are
	owner  fuse.Owner // whose the checkpoints are
	perm   uint32     // of files, without lists
	// users and groups are in the lists, sorted; if there are none, there are no lists.
	users, groups []uint32
}

// newGuard works out rights. server is the user of the server: it must be able to read its own mount.
func newGuard(r Rights, server fuse.Owner) guard {
	g := guard{server: server, owner: server, perm: r.perm()}
	if r.UID != nil {
		g.owner.Uid = *r.UID
	}
	if r.GID != nil {
		g.owner.Gid = *r.GID
	}
	g.users, g.groups = slices.Clone(r.Users), slices.Clone(r.Groups)
	if server.Uid != 0 && g.owner.Uid != server.Uid && g.perm&0o004 == 0 {
		g.users = append(g.users, server.Uid)
	}
	for _, ids := range []*[]uint32{&g.users, &g.groups} {
		slices.Sort(*ids)
		*ids = slices.Compact(*ids)
	}
	return g
}

// lists says whether there are access control lists.
func (g *guard) lists() bool { return len(g.users)+len(g.groups) > 0 }

// widen makes of who may read the permissions of a node: where a file may be read, a directory may be
// entered, and a clone that is nobody's be written to.
func widen(read uint32, n *node) uint32 {
	switch {
	case n.dir():
		return read | read>>2
	case n.kind == kindCloneMem:
		return read | read>>1
	}
	return read
}

// listed says whether a node has an access control list: all have that are for everybody who is let in. That
// of a clone which has an owner by now says nothing, since the mode has no bits for a group then.
func (g *guard) listed(n *node) bool {
	return g.lists() && n.kind != kindSocket && n.kind != kindMetrics
}

// The access control list of a file, as the extended attribute of <linux/posix_acl_xattr.h>.
const (
	aclAttribute = "system.posix_acl_access"
	aclVersion   = 2
	aclUserObj   = 0x01
	aclUser      = 0x02
	aclGroupObj  = 0x04
	aclGroup     = 0x08
	aclMask      = 0x10
	aclOther     = 0x20
	aclNoID      = ^uint32(0)

	aclHeader, aclEntry = 4, 8
)

// MaxListed is how many users and groups Rights may name: what the kernel takes in one attribute.
const MaxListed = (4096-aclHeader)/aclEntry - 8

// acl is the list of a node: those who are named have the same permissions on it, whatever the others have.
func (g *guard) acl(n *node) []byte {
	perm, named := widen(g.perm, n), widen(4, n)
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	entry := func(tag, perm, id uint32) {
		b = binary.LittleEndian.AppendUint16(b, uint16(tag))
		b = binary.LittleEndian.AppendUint16(b, uint16(perm))
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	entry(aclUserObj, perm>>6&7, aclNoID)
	for _, id := range g.users {
		entry(aclUser, named, id)
	}
	entry(aclGroupObj, perm>>3&7, aclNoID)
	for _, id := range g.groups {
		entry(aclGroup, named, id)
	}
	entry(aclMask, named|perm>>3&7, aclNoID)
	entry(aclOther, perm&7, aclNoID)
	return b
}

// mode is the type and the permissions of a node. Where others are let in the kernel goes by them: who may
// read checkpoints is what Rights say, only the server's user may use the control files, and everybody who
// is let in may use a clone until somebody has opened its memory, and then only this user. Else the kernel
// lets no other user in.
func (s *Server) mode(n *node) uint32 {
	g := &s.guard
	switch {
	case n.kind == kindSocket:
		return syscall.S_IFLNK | 0o777
	case n.kind == kindMetrics:
		return syscall.S_IFREG | 0o400
	case n.kind == kindCloneMem && n.owner() != nil:
		return syscall.S_IFREG | 0o600
	}
	perm := widen(g.perm, n)
	if g.listed(n) {
		perm |= widen(4, n) << 3 // the kernel takes these bits for the mask of the list
	}
	if n.dir() {
		return syscall.S_IFDIR | perm
	}
	return syscall.S_IFREG | perm
}

// GetXAttr implements fuse.RawFileSystem: access control lists are all that there is. It never returns
// ENOSYS, because the kernel would then never ask again, and go by the bits of the group alone.
func (r *raw) GetXAttr(
	_ <-chan struct{}, in *fuse.InHeader, name string, dest []byte,
) (size uint32, status fuse.Status) {
	defer r.s.rescue("GETXATTR", &status)
	n := r.s.tree.node(in.NodeId)
	switch {
	case n == nil:
		return 0, fuse.Status(syscall.ESTALE)
	case name != aclAttribute || !r.s.guard.listed(n):
		return 0, fuse.ENOATTR
	}
	list := r.s.guard.acl(n)
	if len(dest) < len(list) {
		return uint32(len(list)), fuse.ERANGE
	}
	return uint32(copy(dest, list)), fuse.OK
}

// ListXAttr implements fuse.RawFileSystem: there are none to be copied.
func (r *raw) ListXAttr(<-chan struct{}, *fuse.InHeader, []byte) (uint32, fuse.Status) {
	return 0, fuse.OK
}

// errNoLists: the kernel takes no access control lists from a FUSE server.
var errNoLists = errors.New("this kernel takes no access control lists from a FUSE server (it needs " +
	"Linux 4.9): name one user and one group to show the files as theirs instead")

// checkLists says whether the kernel goes by access control lists, which it says at the mount.
func (s *Server) checkLists(srv *fuse.Server) error {
	if s.guard.lists() && srv.KernelSettings().Flags64()&fuse.CAP_POSIX_ACL == 0 {
		return errNoLists
	}
	return nil
}

// self is the user of this process.
func self() fuse.Owner { return fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())} }
