// Package pack is the file format of a store's content: pages in units and blocks, records, and
// segment frames, with a directory and a footer at the end.
package pack
