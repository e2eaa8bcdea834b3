package process

import (
	"net"
	"os"
	"strings"
)

// Notify tells systemd the state of the service ("READY=1", "STOPPING=1"), as sd_notify(3) does.
// Without NOTIFY_SOCKET in the environment nobody asked, and it does nothing.
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:] // abstract namespace
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
