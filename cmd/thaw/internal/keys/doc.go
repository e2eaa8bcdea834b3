// Package keys gets the key of a sealed store from where its user keeps it: a file, a command that prints it,
// or a keyring of the kernel. thaw never asks for one on the terminal, and never writes one down, but for
// "thaw key new".
package keys
