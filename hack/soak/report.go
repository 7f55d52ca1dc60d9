package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// report is what one run came to.
type report struct {
	Tenant   string
	Seed     uint64
	Started  time.Time
	Duration string
	Kills    int
	// Writes were acknowledged, Refused were answered with no, Unknown were not
	// answered.
	Writes, Refused, Unknown int
	HostEdits, HostDeletions int
	Quiet                    bool
	QuietAfter               string
	// Lost are acknowledged writes that are gone, and what nobody wrote.
	Lost []string
	comparison
}

// finish writes the report down, says what matters, and gives the error that the
// result is.
func (r *report) finish(o options, stdout io.Writer) error {
	dir := o.out
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(o.root, dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "soak.json")
	if err := os.WriteFile(file, append(data, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d writes acknowledged, %d refused, %d not answered; %d edits and %d deletions on the host; %d kills\n",
		r.Writes, r.Refused, r.Unknown, r.HostEdits, r.HostDeletions, r.Kills)
	pairs := 0
	for _, n := range r.Compared {
		pairs += n
	}
	fmt.Fprintf(stdout, "%d objects compared on both sides %v, %d of them not allowed; at rest after %s: %t\n", pairs, r.Compared, r.NotAllowed, r.QuietAfter, r.Quiet)
	for _, list := range [][]string{r.Lost, r.Problems} {
		for _, problem := range list {
			fmt.Fprintln(stdout, "-", problem)
		}
	}
	fmt.Fprintf(stdout, "seed %d; report in %s\n", r.Seed, file)
	switch {
	case len(r.Lost)+len(r.Problems) > 0:
		return fmt.Errorf("%w: %d writes and %d objects", errDisagree, len(r.Lost), len(r.Problems))
	case !r.Quiet:
		return fmt.Errorf("%w: they did not come to rest within %s", errDisagree, o.quietTimeout)
	}
	return nil
}
