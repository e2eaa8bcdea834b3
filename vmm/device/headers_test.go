package device

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// Numbers that are not ours are compared with the kernel's headers.
func TestHeaders(t *testing.T) {
	tests := map[string]map[string]uint64{
		"virtio_mmio.h": {
			"VIRTIO_MMIO_MAGIC_VALUE": regMagic, "VIRTIO_MMIO_VERSION": regVersion,
			"VIRTIO_MMIO_DEVICE_ID": regDeviceID, "VIRTIO_MMIO_VENDOR_ID": regVendorID,
			"VIRTIO_MMIO_DEVICE_FEATURES":     regDeviceFeatures,
			"VIRTIO_MMIO_DEVICE_FEATURES_SEL": regDeviceFeaturesSel,
			"VIRTIO_MMIO_DRIVER_FEATURES":     regDriverFeatures,
			"VIRTIO_MMIO_DRIVER_FEATURES_SEL": regDriverFeaturesSel,
			"VIRTIO_MMIO_QUEUE_SEL":           regQueueSel, "VIRTIO_MMIO_QUEUE_NUM_MAX": regQueueNumMax,
			"VIRTIO_MMIO_QUEUE_NUM": regQueueNum, "VIRTIO_MMIO_QUEUE_READY": regQueueReady,
			"VIRTIO_MMIO_QUEUE_NOTIFY":     regQueueNotify,
			"VIRTIO_MMIO_INTERRUPT_STATUS": regInterruptStatus,
			"VIRTIO_MMIO_INTERRUPT_ACK":    regInterruptAck, "VIRTIO_MMIO_STATUS": regStatus,
			"VIRTIO_MMIO_QUEUE_DESC_LOW": regQueueDescLow, "VIRTIO_MMIO_QUEUE_DESC_HIGH": regQueueDescHigh,
			"VIRTIO_MMIO_QUEUE_AVAIL_LOW":  regQueueAvailLow,
			"VIRTIO_MMIO_QUEUE_AVAIL_HIGH": regQueueAvailHigh,
			"VIRTIO_MMIO_QUEUE_USED_LOW":   regQueueUsedLow, "VIRTIO_MMIO_QUEUE_USED_HIGH": regQueueUsedHigh,
			"VIRTIO_MMIO_SHM_LEN_LOW": regShmLenLow, "VIRTIO_MMIO_SHM_BASE_HIGH": regShmBaseHigh,
			"VIRTIO_MMIO_CONFIG_GENERATION": regGeneration, "VIRTIO_MMIO_CONFIG": regConfig,
		},
		"virtio_config.h": {
			"VIRTIO_CONFIG_S_ACKNOWLEDGE": statusAcknowledge, "VIRTIO_CONFIG_S_DRIVER": statusDriver,
			"VIRTIO_CONFIG_S_DRIVER_OK": statusDriverOK, "VIRTIO_CONFIG_S_FEATURES_OK": statusFeaturesOK,
			"VIRTIO_CONFIG_S_NEEDS_RESET": statusNeedsReset, "VIRTIO_CONFIG_S_FAILED": statusFailed,
		},
		"virtio_ring.h": {
			"VRING_DESC_F_NEXT": descNext, "VRING_DESC_F_WRITE": descWrite,
			"VRING_DESC_F_INDIRECT": descIndirect, "VRING_AVAIL_F_NO_INTERRUPT": availNoInterrupt,
			"VIRTIO_RING_F_INDIRECT_DESC": 28, "VIRTIO_RING_F_EVENT_IDX": 29,
		},
		"virtio_ids.h": {"VIRTIO_ID_BLOCK": blockID, "VIRTIO_ID_RNG": rngID},
		"virtio_blk.h": {
			"VIRTIO_BLK_F_SIZE_MAX": 1, "VIRTIO_BLK_F_SEG_MAX": 2, "VIRTIO_BLK_F_RO": 5,
			"VIRTIO_BLK_F_BLK_SIZE": 6, "VIRTIO_BLK_F_FLUSH": 9, "VIRTIO_BLK_F_DISCARD": 13,
			"VIRTIO_BLK_F_WRITE_ZEROES": 14, "VIRTIO_BLK_ID_BYTES": blockIDBytes,
			"VIRTIO_BLK_T_IN": blockIn, "VIRTIO_BLK_T_OUT": blockOut, "VIRTIO_BLK_T_FLUSH": blockFlush,
			"VIRTIO_BLK_T_GET_ID": blockGetID, "VIRTIO_BLK_T_DISCARD": blockDiscard,
			"VIRTIO_BLK_T_WRITE_ZEROES": blockWriteZeroes, "VIRTIO_BLK_S_OK": blockOK,
			"VIRTIO_BLK_S_IOERR": blockIOError, "VIRTIO_BLK_S_UNSUPP": blockUnsupported,
			"VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP": blockUnmap,
		},
		"serial_reg.h": {
			"UART_RX": serialData, "UART_TX": serialData, "UART_IER": serialIER, "UART_IIR": serialIIR,
			"UART_FCR": serialFCR, "UART_LCR": serialLCR, "UART_MCR": serialMCR, "UART_LSR": serialLSR,
			"UART_MSR": serialMSR, "UART_SCR": serialScratch, "UART_DLL": serialDivisorL,
			"UART_DLM": serialDivisorH, "UART_IER_RDI": ierRDI, "UART_IER_THRI": ierTHRI,
			"UART_IER_RLSI": ierRLSI, "UART_IER_MSI": ierMSI, "UART_IIR_NO_INT": iirNone,
			"UART_IIR_MSI": iirMSI, "UART_IIR_THRI": iirTHRI, "UART_IIR_RDI": iirRDI,
			"UART_IIR_RLSI": iirRLSI, "UART_IIR_RX_TIMEOUT": iirTimeout,
			"UART_FCR_ENABLE_FIFO": fcrEnable, "UART_FCR_CLEAR_RCVR": fcrClearRx,
			"UART_FCR_TRIGGER_MASK": fcrTrigger, "UART_LCR_DLAB": lcrDLAB, "UART_MCR_DTR": mcrDTR,
			"UART_MCR_RTS": mcrRTS, "UART_MCR_OUT1": mcrOut1, "UART_MCR_OUT2": mcrOut2,
			"UART_MCR_LOOP": mcrLoop, "UART_LSR_DR": lsrDR, "UART_LSR_OE": lsrOE,
			"UART_LSR_THRE": lsrTHRE, "UART_LSR_TEMT": lsrTEMT,
			"UART_MSR_TERI": msrTERI, "UART_MSR_CTS": msrCTS,
			"UART_MSR_DSR": msrDSR, "UART_MSR_RI": msrRI, "UART_MSR_DCD": msrDCD,
		},
	}
	for name, values := range tests {
		text, err := os.ReadFile("/usr/include/linux/" + name)
		if err != nil {
			t.Skip("needs the kernel's headers (apt-get install linux-libc-dev): ", err)
		}
		defined := map[string]uint64{}
		define := regexp.MustCompile(`(?m)^#define\s+(\w+)\s+\(?(0x[0-9a-fA-F]+|[0-9]+)\b`)
		for _, m := range define.FindAllStringSubmatch(string(text), -1) {
			if v, err := strconv.ParseUint(m[2], 0, 64); err == nil {
				defined[m[1]] = v
			}
		}
		for macro, want := range values {
			if got, ok := defined[macro]; !ok || got != want {
				t.Errorf("%s: %s is %#x (%v), expected %#x", name, macro, got, ok, want)
			}
		}
	}
	for bit, feature := range map[int]uint64{1: blockFeatureSizeMax, 2: blockFeatureSegMax,
		5: blockFeatureReadOnly, 6: blockFeatureBlockSize, 9: blockFeatureFlush, 13: blockFeatureDiscard,
		14: blockFeatureWriteZeroes, 28: featureIndirect, 29: featureEventIdx, 32: featureVersion1} {
		if feature != 1<<bit {
			t.Errorf("feature %d is %#x", bit, feature)
		}
	}
}
