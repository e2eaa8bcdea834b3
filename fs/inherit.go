package fs

// inherit notes that the kernel may know every node of the table more often than lookups say.
func (t *tree) inherit() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.nodes {
		n.inherited = true
	}
}

// adopt adds nodes that the kernel may know from the server before.
func (t *tree) adopt(list []*node) []*node {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, want := range list {
		list[i] = t.internLocked(want)
		list[i].inherited = true
	}
	return list
}

// inherited are the numbers of the nodes that the kernel may know from the server before.
func (t *tree) inherited() (ids []uint64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for id, n := range t.nodes {
		if n.inherited && n != t.root {
			ids = append(ids, id)
		}
	}
	return ids
}

// disown notes that the kernel does not know a node from the server before. It returns the node if the kernel
// does not know it at all.
func (t *tree) disown(id uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[id]
	if n == nil || !n.inherited {
		return nil
	}
	n.inherited = false
	return t.forgetLocked(n, 0)
}

// knows says whether the tree has nodes of a checkpoint.
func (t *tree) knows() func(ledgerKey) bool {
	known := map[ledgerKey]bool{}
	for _, e := range t.known() {
		known[ledgerKey{Name: e.name, ID: e.id}] = true
	}
	return func(k ledgerKey) bool { return known[k] }
}

// has says whether a node is in the table.
func (t *tree) has(want *node) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for try := 0; ; try++ {
		n, taken := t.nodes[nodeID(want.kind, want.checkpointID(), want.detail, try)]
		if !taken {
			return false
		}
		if n.same(want) {
			return true
		}
	}
}
