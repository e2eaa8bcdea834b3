package fs

// Mounts lists where thaw file systems are mounted in this mount namespace, each once, the older first. Their
// servers may be dead.
func Mounts() (points []string, err error) {
	table, err := readMounts(selfMounts)
	if err != nil {
		return nil, err
	}
	seen := map[uint32]bool{}
	for _, m := range table {
		if m.fsType == fsType && m.root == "/" && !seen[m.minor] {
			seen[m.minor] = true
			points = append(points, m.mountPoint)
		}
	}
	return points, nil
}
