// Package charts holds Sublet's Helm chart, so that the command line installs
// it without any file beside it.
package charts

import (
	"embed"
	"io/fs"
)

//go:embed all:sublet
var files embed.FS

// Sublet is the chart, with Chart.yaml at its root.
func Sublet() (fs.FS, error) {
	return fs.Sub(files, "sublet")
}
