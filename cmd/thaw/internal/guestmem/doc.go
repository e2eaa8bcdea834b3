// Package guestmem reads the memory of saved machines in the formats of other programs.
package guestmem
