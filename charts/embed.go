// Package charts holds the Helm chart of Sublet, so that the command line can
// install it without any file beside it.
package charts

import (
	"embed"
	"io/fs"
)

//go:embed all:sublet
var files embed.FS

// Sublet is the folder of the chart.
func Sublet() (fs.FS, error) {
	return fs.Sub(files, "sublet")
}
