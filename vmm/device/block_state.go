package device

// BlockState is the state of a Block. It does not contain the disk: a restore needs a disk with the
// contents that it had at the checkpoint.
type BlockState struct {
	Transport TransportState
	Queue     [1]QueueState
	Sectors   uint64
	Changed   int64 // modification time of the file, in ns since 1970
	ID        [blockIDBytes]uint8
	ReadOnly  uint8
}

// Tag returns the tag of the section in the state file.
func (*Block) Tag() string { return "VIRTBLK" }

// State returns the state for a checkpoint. The device must be drained.
func (b *Block) State() BlockState {
	s := BlockState{Sectors: b.disk.sectors, ReadOnly: flag(b.disk.readOnly)}
	s.Transport = b.save(s.Queue[:])
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Changed, s.ID = b.changed, b.id
	return s
}

// Restore sets the state. The disk must be like the one that the guest knows.
func (b *Block) Restore(s BlockState) error {
	if s.Sectors != b.disk.sectors || s.ReadOnly != flag(b.disk.readOnly) {
		return badState("the guest has a disk of %d sectors (read-only: %d), and %s has %d sectors (read-only: %d)",
			s.Sectors, s.ReadOnly, b.disk.name, b.disk.sectors, flag(b.disk.readOnly))
	}
	if err := b.load(s.Transport, s.Queue[:]); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.id, b.changed = s.ID, s.Changed
	changed, err := b.disk.storage.Changed()
	if err == nil && changed.UnixNano() != s.Changed {
		b.machine.Log.Warn("the disk was written to, or copied, after the checkpoint: if its contents are not "+
			"those at the checkpoint, the guest will damage its file system", "disk", b.disk.name,
			"written", changed)
	}
	return nil
}
