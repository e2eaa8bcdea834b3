package process

import (
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// HolderFile is the name of the file over which a server talks to the holder that has started it.
const HolderFile = "holder"

// A Holder keeps files of a server, and gives them to the next one when the server has died. It is a
// process of ours (package holder), told in the form of sd_notify(3). The methods of a nil Holder do nothing.
type Holder struct {
	conn *net.UnixConn
	file *os.File // of ours: what the next program in this process gets
	// Ours: it is a process of ours.
	Ours bool
	// Keeps: it keeps files.
	Keeps bool
}

// FindHolder finds the holder that has started this process; nil if there is none.
func FindHolder(files Files) (*Holder, error) {
	if f := files[HolderFile]; f != nil {
		conn, err := net.FileConn(f)
		if err != nil {
			return nil, err
		}
		return &Holder{conn: conn.(*net.UnixConn), file: f, Ours: true, Keeps: true}, nil
	}
	return nil, nil
}

// dialNotify connects to systemd; nil if it has not started this process as one that notifies.
func dialNotify() (*net.UnixConn, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:] // abstract namespace
	}
	return net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
}

// Tell says something about the state of the server.
func (h *Holder) Tell(state string) error {
	if h == nil {
		return nil
	}
	_, err := h.conn.Write([]byte(state))
	return err
}

// Keep has it keep a file under a name. FDPOLL=0: systemd would throw it away when it is in error or at
// its end.
func (h *Holder) Keep(name string, fd int) error {
	if h == nil || !h.Keeps {
		return nil
	}
	state := fmt.Sprintf("FDSTORE=1\nFDNAME=%s%s\nFDPOLL=0", filePrefix, name)
	_, _, err := h.conn.WriteMsgUnix([]byte(state), unix.UnixRights(fd), nil)
	return err
}

// Drop has it keep nothing of that name any more.
func (h *Holder) Drop(name string) error {
	if h == nil || !h.Keeps {
		return nil
	}
	return h.Tell(fmt.Sprintf("FDSTOREREMOVE=1\nFDNAME=%s%s", filePrefix, name))
}

// File is what the next program in this process finds the holder by, if it is one of ours; else nil.
func (h *Holder) File() *os.File { return h.file }

// Close ends the talk.
func (h *Holder) Close() {
	if h != nil {
		h.conn.Close()
	}
}

// A Message is what a server has told its holder.
type Message struct {
	vars map[string]string
	File *os.File // that came with it; nil: none
}

// ReadMessage reads one message from a server. The error is io.EOF when the server has closed its end.
func ReadMessage(conn *net.UnixConn) (m Message, err error) {
	b, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil {
		return m, err
	}
	m.vars = map[string]string{}
	for line := range strings.Lines(string(b[:n])) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			m.vars[name] = value
		}
	}
	m.File = fileOf(oob[:oobn])
	return m, nil
}

// fileOf takes the file out of a message, the first one if there are more.
func fileOf(oob []byte) (file *os.File) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range list {
		fds, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			if file == nil {
				file = os.NewFile(uintptr(fd), "kept")
			} else {
				unix.Close(fd)
			}
		}
	}
	return file
}

// Is says whether the message sets a variable to 1.
func (m Message) Is(name string) bool { return m.vars[name] == "1" }

// Value is what it sets a variable to; "" if it does not.
func (m Message) Value(name string) string { return m.vars[name] }

// Name is the name of the file that it is about; "" if it is about none of ours.
func (m Message) Name() string {
	name, ours := strings.CutPrefix(m.vars["FDNAME"], filePrefix)
	if !ours {
		return ""
	}
	return name
}

// Empty says that nothing was said, as at the end.
func (m Message) Empty() bool { return len(m.vars) == 0 && m.File == nil }

// Held says whether a holder of ours has started this process. It is asked before InheritedFiles is called.
func Held() bool {
	_, held := parseFiles(os.Getenv(filesEnv))[HolderFile]
	return held
}
