package process

// Notify tells systemd the state of the service ("READY=1", "STOPPING=1"), as sd_notify(3) does.
// Without NOTIFY_SOCKET in the environment nobody asked, and it does nothing.
func Notify(state string) error {
	conn, err := dialNotify()
	if conn == nil || err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
