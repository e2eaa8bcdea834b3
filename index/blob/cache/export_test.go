package cache

// SetClock replaces the clock. No blob may be open.
func (c *Cache) SetClock(now func() uint32) { c.now = now }

// MakeRoom looks at the limits.
func (c *Cache) MakeRoom() { c.makeRoom() }

// Usage is what the files take.
func (c *Cache) Usage() (int64, error) { return c.usage() }

// Paths lists the files.
func (c *Cache) Paths() (paths []string, err error) {
	err = c.walk(func(path string, _ key) error {
		paths = append(paths, path)
		return nil
	})
	return paths, err
}
