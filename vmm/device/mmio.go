package device

// The virtio-mmio transport, version 2 (virtio 1.2, 4.2).

// VirtioSize is the size of a device's window in the physical address space.
const VirtioSize = 0x1000

// Registers.
const (
	regMagic             = 0x000
	regVersion           = 0x004
	regDeviceID          = 0x008
	regVendorID          = 0x00c
	regDeviceFeatures    = 0x010
	regDeviceFeaturesSel = 0x014
	regDriverFeatures    = 0x020
	regDriverFeaturesSel = 0x024
	regQueueSel          = 0x030
	regQueueNumMax       = 0x034
	regQueueNum          = 0x038
	regQueueReady        = 0x044
	regQueueNotify       = 0x050
	regInterruptStatus   = 0x060
	regInterruptAck      = 0x064
	regStatus            = 0x070
	regQueueDescLow      = 0x080
	regQueueDescHigh     = 0x084
	regQueueAvailLow     = 0x090
	regQueueAvailHigh    = 0x094
	regQueueUsedLow      = 0x0a0
	regQueueUsedHigh     = 0x0a4
	regShmLenLow         = 0x0b0
	regShmBaseHigh       = 0x0bc
	regGeneration        = 0x0fc
	regConfig            = 0x100
)

const (
	virtioMagic   = 0x74726976 // "virt"
	virtioVersion = 2
	virtioVendor  = 0x74616874 // "thaw"
	noShm         = 0xffff_ffff
)

// Bits of the status register.
const (
	statusAcknowledge = 1
	statusDriver      = 2
	statusDriverOK    = 4
	statusFeaturesOK  = 8
	statusNeedsReset  = 64
	statusFailed      = 128
	statusMask        = 0xcf
)

// Reasons of an interrupt.
const (
	interruptUsed   = 1
	interruptConfig = 2
)

// Features of the transport.
const (
	featureIndirect = 1 << 28
	featureEventIdx = 1 << 29
	featureVersion1 = 1 << 32

	transportFeatures = featureIndirect | featureEventIdx | featureVersion1
)

func (v *virtio) offered() uint64 { return v.backend.features() | transportFeatures }

// running says whether the driver has set up the device, and neither has reported an error.
func (v *virtio) running() bool {
	return v.state.Status&(statusDriverOK|statusNeedsReset|statusFailed) == statusDriverOK
}

// Read returns a register, or bytes of the configuration space.
func (v *virtio) Read(off uint64, p []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(p)
	if off >= regConfig {
		if config := v.backend.config(); off-regConfig < uint64(len(config)) {
			copy(p, config[off-regConfig:])
		}
	} else if len(p) == 4 {
		le.PutUint32(p, v.register(off))
	}
	return nil
}

func (v *virtio) register(off uint64) uint32 {
	switch off {
	case regMagic:
		return virtioMagic
	case regVersion:
		return virtioVersion
	case regDeviceID:
		return v.backend.deviceID()
	case regVendorID:
		return virtioVendor
	case regDeviceFeatures:
		return uint32(v.offered() >> (32 * uint64(v.state.DeviceFeaturesSel))) // 0 beyond the two words
	case regQueueNumMax:
		if v.selected() != nil {
			return queueMax
		}
	case regQueueReady:
		if q := v.selected(); q != nil {
			return uint32(q.state.Ready)
		}
	case regInterruptStatus:
		return v.state.Interrupt
	case regStatus:
		return v.state.Status
	case regGeneration:
		return v.state.Generation
	}
	if off >= regShmLenLow && off <= regShmBaseHigh {
		return noShm
	}
	return 0
}

// setHalf replaces one of two words.
func setHalf(whole *uint64, high bool, v uint32) {
	if high {
		*whole = *whole&0xffff_ffff | uint64(v)<<32
	} else {
		*whole = *whole&^0xffff_ffff | uint64(v)
	}
}

func (v *virtio) selected() *queue {
	if v.state.QueueSel < uint32(len(v.queues)) {
		return v.queues[v.state.QueueSel]
	}
	return nil
}

// Write sets a register. A write that is not allowed, or not allowed now, has no effect.
func (v *virtio) Write(off uint64, p []byte) error {
	if len(p) != 4 || off >= regConfig {
		return nil // registers have 32 bits, and no configuration can be written
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.setRegister(off, le.Uint32(p))
}

func (v *virtio) setRegister(off uint64, value uint32) error {
	s := &v.state
	switch off {
	case regDeviceFeaturesSel:
		s.DeviceFeaturesSel = value
	case regDriverFeaturesSel:
		s.DriverFeaturesSel = value
	case regDriverFeatures:
		if s.Status&(statusDriver|statusFeaturesOK|statusFailed) == statusDriver &&
			s.DriverFeaturesSel <= 1 {
			setHalf(&s.DriverFeatures, s.DriverFeaturesSel == 1, value)
		}
	case regQueueSel:
		s.QueueSel = value
	case regQueueNotify:
		if value < uint32(len(v.queues)) && v.running() {
			v.queues[value].kicked = true
			v.cond.Broadcast()
		}
	case regInterruptAck:
		s.Interrupt &^= value
		return v.setLine()
	case regStatus:
		return v.setStatus(value)
	default:
		if q := v.selected(); q != nil && s.Status&(statusFeaturesOK|statusFailed) == statusFeaturesOK {
			return v.setQueueRegister(q, off, value)
		}
	}
	return nil
}

// setStatus makes a step of the initialization (virtio 1.2, 3.1), or resets the device.
func (v *virtio) setStatus(value uint32) error {
	s := &v.state
	if value == 0 {
		return v.reset()
	}
	value = value&statusMask&^statusNeedsReset | s.Status&statusNeedsReset
	if s.Status&^value != 0 {
		return nil // a driver must not take a step back
	}
	begun := uint32(statusAcknowledge | statusDriver)
	if value&begun != begun || v.refuses() {
		value &^= statusFeaturesOK &^ s.Status // so the driver sees that its features are refused
	}
	if value&statusFeaturesOK == 0 {
		value &^= statusDriverOK
	}
	started := value&^s.Status&statusDriverOK != 0
	s.Status = value
	if started {
		v.kickAll() // chains may be available already
	}
	return nil
}

// refuses says whether the driver's features are unacceptable.
func (v *virtio) refuses() bool {
	f := v.state.DriverFeatures
	return f&^v.offered() != 0 || f&featureVersion1 == 0
}

// negotiated sets the features of a queue. They are fixed before any queue is made ready.
func (v *virtio) negotiated(q *queue) {
	q.indirect = v.state.DriverFeatures&featureIndirect != 0
	q.eventIdx = v.state.DriverFeatures&featureEventIdx != 0
}

// reset resets the device. When it returns, no request is being served: the driver relies on the device
// not touching its memory any more.
func (v *virtio) reset() error {
	v.stop()
	v.state = TransportState{Generation: v.state.Generation}
	for _, q := range v.queues {
		q.state, q.kicked = QueueState{}, false
	}
	return v.setLine()
}

// setQueueRegister sets a register of a queue. While the queue is ready, only QueueReady can be changed.
func (v *virtio) setQueueRegister(q *queue, off uint64, value uint32) error {
	s := &q.state
	if off == regQueueReady {
		return v.setReady(q, value)
	}
	if s.Ready != 0 {
		return nil
	}
	switch off {
	case regQueueNum:
		s.Size = uint16(min(value, queueMax+1)) // more than queueMax is refused when it is made ready
	case regQueueDescLow, regQueueDescHigh:
		setHalf(&s.Desc, off == regQueueDescHigh, value)
	case regQueueAvailLow, regQueueAvailHigh:
		setHalf(&s.Avail, off == regQueueAvailHigh, value)
	case regQueueUsedLow, regQueueUsedHigh:
		setHalf(&s.Used, off == regQueueUsedHigh, value)
	}
	return nil
}

// setReady starts or stops the use of a queue.
func (v *virtio) setReady(q *queue, value uint32) error {
	switch {
	case value == 0:
		v.stop()
		q.state.Ready, q.state.LastAvail, q.state.LastUsed = 0, 0, 0
	case value == 1 && q.state.Ready == 0:
		if err := q.check(); err != nil {
			return v.needReset(err)
		}
		v.negotiated(q)
		q.state.Ready = 1
	}
	return nil
}
