package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionInfo is what `thaw version --json` prints.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print which thaw this is",
		Long: `Print the version of thaw, of the Go that built it, and the platform; with --json also
the revision of the source.`,
		Example: `  thaw version`,
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return runVersion(a) },
	}
}

func runVersion(a *app) error {
	v := buildVersion()
	if a.json {
		return a.printJSON(v)
	}
	a.printf("thaw %s (%s, %s)\n", v.Version, v.Go, v.Platform)
	return nil
}

func buildVersion() versionInfo {
	v := versionInfo{Version: "devel", Revision: buildSetting("vcs.revision"), Go: runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	return v
}

// buildSetting is what the build was told, such as the commit; "" if it was not.
func buildSetting(key string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == key {
				return s.Value
			}
		}
	}
	return ""
}
