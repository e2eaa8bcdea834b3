// Package install tests what is installed: the unit, the scripts of the package, the package itself, and a
// host on which it is installed, used and upgraded.
//
// The rules for the unit and the scripts need nothing but this repository. The package is built by the run
// without -short: that needs the module of the packager, and a repository that is no archive. The host is
// this one, booted by systemd-nspawn as a container over an overlay, so that nothing of it is changed. It
// has no network.
package install
