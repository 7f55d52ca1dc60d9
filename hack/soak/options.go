package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"time"
)

// options as flags have them.
type options struct {
	root, tenant, out string
	duration          time.Duration
	killEvery         time.Duration
	meddleEvery       time.Duration
	quietTimeout      time.Duration
	writers           int
	seed              uint64
	keep              bool
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.StringVar(&o.root, "root", ".", "the checkout whose local host is used")
	flags.StringVar(&o.tenant, "tenant", "soak", "the tenant; it is made if it is not there, and then deleted at the end")
	flags.StringVar(&o.out, "out", "bench/out", "where the report goes, below root")
	flags.DurationVar(&o.duration, "duration", 30*time.Minute, "how long to write")
	flags.DurationVar(&o.killEvery, "kill-every", 2*time.Minute, "how often the tenant's process is killed; 0 is never")
	flags.DurationVar(&o.meddleEvery, "meddle-every", time.Second, "how often the host's administrator meddles; 0 is never")
	flags.DurationVar(&o.quietTimeout, "quiet-timeout", 10*time.Minute, "how long both sides may take to come to rest")
	flags.IntVar(&o.writers, "writers", 4, "how many write at once")
	flags.Uint64Var(&o.seed, "seed", 0, "of all that is random; 0 chooses one")
	flags.BoolVar(&o.keep, "keep", false, "leave the tenant there")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("what is %q? There are flags only", flags.Arg(0))
	}
	if o.duration <= 0 || o.writers <= 0 {
		return o, errors.New("-duration and -writers must be more than nothing")
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	root, err := filepath.Abs(o.root)
	o.root = root
	return o, err
}

// errDisagree tells that something is wrong with what was soaked.
var errDisagree = errors.New("the two sides do not agree")

func run(ctx context.Context, args []string, stdout io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "tenant %s, %s, seed %d (-seed %d does the same again, as far as time lets it)\n", o.tenant, o.duration, o.seed, o.seed)
	t, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer t.close()
	s := &soak{options: o, target: t, journal: newJournal(), meddled: newMeddled(), stdout: stdout}
	r, err := s.run(ctx)
	if err != nil {
		return err
	}
	return r.finish(o, stdout)
}
