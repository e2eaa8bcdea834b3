package process

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A User is one that a process can become.
type User struct {
	Name     string
	UID, GID uint32
	Groups   []uint32 // all of them
	Home     string
}

// LookupUser finds a user by name or number, with the groups.
func LookupUser(name string) (User, error) {
	u, err := user.Lookup(name)
	if errors.As(err, new(user.UnknownUserError)) {
		u, err = user.LookupId(name)
	}
	if err != nil {
		return User{}, fmt.Errorf("user %s: %w", name, err)
	}
	ids := []string{u.Uid, u.Gid}
	groups, err := u.GroupIds()
	if err != nil {
		return User{}, fmt.Errorf("groups of user %s: %w", name, err)
	}
	numbers := make([]uint32, 0, len(ids)+len(groups))
	for _, id := range append(ids, groups...) {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return User{}, fmt.Errorf("user %s: %w", name, err)
		}
		numbers = append(numbers, uint32(n))
	}
	return User{Name: u.Username, UID: numbers[0], GID: numbers[1], Groups: numbers[2:], Home: u.HomeDir}, nil
}

// Become gives this process, all its threads, the rights of a user, and takes all others away for good: it
// is no member of other groups and has no capability. Its environment is that of the user as far as thaw
// looks at it. The process must be root's.
func Become(u User) error {
	groups := make([]int, 0, len(u.Groups))
	for _, g := range u.Groups {
		groups = append(groups, int(g))
	}
	uid, gid := int(u.UID), int(u.GID)
	err := os.NewSyscallError("setgroups", syscall.Setgroups(groups))
	if err == nil {
		err = os.NewSyscallError("setresgid", syscall.Setresgid(gid, gid, gid))
	}
	if err == nil {
		err = os.NewSyscallError("setresuid", syscall.Setresuid(uid, uid, uid))
	}
	if err == nil {
		err = noCapability()
	}
	if err != nil {
		return fmt.Errorf("become user %s: %w", u.Name, err)
	}
	// What was root's: a directory that this user may not use.
	for _, name := range []string{"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"} {
		_ = os.Unsetenv(name)
	}
	for name, value := range map[string]string{"HOME": u.Home, "USER": u.Name, "LOGNAME": u.Name} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}

// noCapability makes sure that the change of the user has taken the capabilities away, which a container
// may have been told not to do.
func noCapability() error {
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	for _, d := range data {
		if d.Effective|d.Permitted != 0 {
			return errors.New("capabilities are left (securebits keep them)")
		}
	}
	return nil
}
