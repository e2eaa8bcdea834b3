package pack

import "fmt"

// Profile is a choice between space and time, made when pages are stored. Packs of both profiles
// are read by the same code and may lie in one store.
type Profile uint8

const (
	// ProfileDefault takes little space: a page costs about what zstd -3 makes of it. New pages are stored
	// as by ProfileFast (NewImportEncoder); they are made small when they are written again.
	ProfileDefault Profile = iota
	// ProfileFast encodes and decodes in the least time, and takes up to 1.4 times the space.
	ProfileFast
)

var profileNames = [...]string{ProfileDefault: "default", ProfileFast: "fast"}

func (p Profile) String() string {
	if int(p) < len(profileNames) {
		return profileNames[p]
	}
	return fmt.Sprintf("profile(%d)", uint8(p))
}

// ParseProfile reads what String writes. The empty string is ProfileDefault.
func ParseProfile(s string) (Profile, error) {
	if s == "" {
		return ProfileDefault, nil
	}
	for p, name := range profileNames {
		if s == name {
			return Profile(p), nil
		}
	}
	return 0, fmt.Errorf("unknown profile %q (know: %v)", s, profileNames[:])
}

// MarshalText and UnmarshalText make a Profile a word in JSON and in flags.
func (p Profile) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (p *Profile) UnmarshalText(b []byte) (err error) {
	*p, err = ParseProfile(string(b))
	return err
}
