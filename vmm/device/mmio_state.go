package device

// TransportState is the part of a virtio-mmio device's state that does not depend on its kind, without
// its queues.
type TransportState struct {
	DriverFeatures    uint64 // as accepted by the driver
	Status            uint32
	DeviceFeaturesSel uint32
	DriverFeaturesSel uint32
	QueueSel          uint32
	Interrupt         uint32 // reasons that the driver has not acknowledged
	Generation        uint32 // of the configuration
}

// save returns the state of the transport and of its queues. The device should be drained.
func (v *virtio) save(queues []QueueState) TransportState {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stop()
	for i, q := range v.queues {
		queues[i] = q.state
	}
	return v.state
}

// load sets the state. The device must be drained; Resume sets the interrupt line.
func (v *virtio) load(s TransportState, queues []QueueState) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.drained {
		return badState("virtio device %d is not drained", v.backend.deviceID())
	}
	v.state = s
	if err := v.checkState(); err != nil {
		return err
	}
	for i, q := range v.queues {
		v.negotiated(q)
		if queues[i].Ready != 0 && s.Status&statusFeaturesOK == 0 {
			return badState("a queue is ready before the features are")
		}
		if err := q.restore(queues[i]); err != nil {
			return err
		}
		// All chains that were taken have been returned, except one if the device needs a reset.
		if open := queues[i].LastAvail - queues[i].LastUsed; open > 1 ||
			open == 1 && s.Status&statusNeedsReset == 0 {
			return badState("a queue has %d chains that are not returned", open)
		}
	}
	return nil
}

func (v *virtio) checkState() error {
	s := &v.state
	switch {
	case s.Status&^statusMask != 0,
		s.Status&statusFeaturesOK != 0 && s.Status&statusDriver == 0,
		s.Status&statusDriverOK != 0 && s.Status&statusFeaturesOK == 0:
		return badState("virtio device %d cannot have status %#x", v.backend.deviceID(), s.Status)
	case s.Status&statusFeaturesOK != 0 && v.refuses():
		return badState("the guest uses features %#x of virtio device %d, which offers %#x",
			s.DriverFeatures, v.backend.deviceID(), v.offered())
	case s.Interrupt&^(interruptUsed|interruptConfig) != 0:
		return badState("virtio device %d cannot have interrupt status %#x", v.backend.deviceID(), s.Interrupt)
	}
	return nil
}
