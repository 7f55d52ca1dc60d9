// Package version tells which Sublet this is. Its version is that of the main
// module, or what the linker was told:
//
//	go build -ldflags "-X github.com/sublet-dev/sublet/pkg/version.version=v0.1.0"
package version

import (
	"runtime"
	"runtime/debug"
)

// Kubernetes is the version of the Kubernetes libraries that this is built
// from: the newest API that a tenant can have.
const Kubernetes = "v1.36.3"

// OldestEmulated is the oldest Kubernetes version that a tenant can ask for.
const OldestEmulated = "1.33"

// version is only ever set by the linker.
var version string

// Info is what `version` commands print.
type Info struct {
	Version    string `json:"version"`
	Commit     string `json:"commit,omitempty"`
	Kubernetes string `json:"kubernetes"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
}

// Get tells the version of this binary.
func Get() Info {
	info := Info{
		Version:    version,
		Kubernetes: Kubernetes,
		Go:         runtime.Version(),
		Platform:   runtime.GOOS + "/" + runtime.GOARCH,
	}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info.orDevel()
	}
	if info.Version == "" && build.Main.Version != "(devel)" {
		info.Version = build.Main.Version
	}
	for _, setting := range build.Settings {
		if setting.Key == "vcs.revision" {
			info.Commit = setting.Value
		}
	}
	return info.orDevel()
}

func (i Info) orDevel() Info {
	if i.Version == "" {
		i.Version = "devel"
	}
	return i
}
