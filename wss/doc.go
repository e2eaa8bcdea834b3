// Package wss knows working sets: the record of which pages a machine touched, how well a restore
// did by them, and the time until the machine is responsive. Full documentation follows below.
package wss
