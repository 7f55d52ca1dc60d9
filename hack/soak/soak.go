package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sublet-dev/sublet/syncer/kinds"
)

// soak is one run.
type soak struct {
	options
	*target
	journal *journal
	meddled *meddled
	stdout  io.Writer
}

func (s *soak) run(ctx context.Context) (*report, error) {
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	started := time.Now()
	kills := s.write(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.say("written for %s; waiting until both sides are at rest", time.Since(started).Round(time.Second))
	rest := time.Now()
	quiet, err := s.settle(ctx)
	if err != nil {
		return nil, err
	}
	r := &report{
		Tenant: s.options.tenant, Seed: s.seed, Started: started.UTC(), Duration: s.duration.String(),
		Kills: kills, Writes: s.journal.writes, Refused: s.journal.refused, Unknown: s.journal.unknown,
		HostEdits: s.meddled.edits, HostDeletions: s.meddled.deletions,
		Quiet: quiet, QuietAfter: time.Since(rest).Round(time.Second).String(),
	}
	if r.Lost, err = s.lost(ctx); err != nil {
		return nil, err
	}
	r.comparison, err = s.agree(ctx)
	return r, err
}

func (s *soak) say(format string, args ...any) {
	fmt.Fprintf(s.stdout, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// prepare makes the writers' namespaces.
func (s *soak) prepare(ctx context.Context) error {
	for _, name := range namespaces() {
		_, err := s.virtual.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("the tenant has a namespace %s, from an earlier run: delete it, or take another tenant", name)
		}
		if err != nil {
			return fmt.Errorf("make namespace %s in the tenant: %w", name, err)
		}
	}
	return nil
}

// write lets writers, administrator and killer work until the time is over.
func (s *soak) write(ctx context.Context) (kills int) {
	ctx, cancel := context.WithTimeout(ctx, s.duration)
	defer cancel()
	var running sync.WaitGroup
	random := func(stream int) *rand.Rand { return rand.New(rand.NewPCG(s.seed, uint64(stream))) }
	for i := range s.writers {
		w := &writer{soak: s, number: i, random: random(i)}
		running.Go(func() { w.run(ctx) })
	}
	if s.meddleEvery > 0 {
		a := &administrator{soak: s, random: random(1000)}
		running.Go(func() { a.run(ctx) })
	}
	if s.killEvery > 0 {
		running.Go(func() { kills = s.killer(ctx) })
	}
	running.Wait()
	return kills
}

func (s *soak) killer(ctx context.Context) (kills int) {
	for {
		pause(ctx, s.killEvery)
		if ctx.Err() != nil {
			return kills
		}
		killed, err := s.kill(ctx)
		if err != nil {
			s.say("not killed: %v", err)
			continue
		}
		kills++
		s.say("killed the tenant's process, %d times now; %d writes acknowledged", kills, s.journal.count())
		if err := s.restarted(ctx, killed); err != nil {
			s.say("not restarted: %v", err)
		}
	}
}

// quietFor is how long nothing may change until it counts as rest: longer than a
// copy outlives the last reference to it.
const quietFor = 45 * time.Second

// settle waits until nothing changes any more on either side. It tells whether
// that came about.
func (s *soak) settle(ctx context.Context) (quiet bool, err error) {
	deadline := time.Now().Add(s.quietTimeout)
	before, since := "", time.Now()
	for time.Now().Before(deadline) {
		now, err := s.snapshot(ctx)
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case err != nil:
			before = "" // The last kill may be a moment ago.
		case now.state() != before:
			before, since = now.state(), time.Now()
		case time.Since(since) >= quietFor:
			return true, nil
		}
		pause(ctx, 3*time.Second)
	}
	return false, nil
}

// lost compares the journal with what the tenant has.
func (s *soak) lost(ctx context.Context) ([]string, error) {
	found := map[key]string{}
	for _, f := range forms() {
		for _, namespace := range namespaces() {
			list, err := s.virtualObjects.Resource(f.resource).Namespace(namespace).List(ctx, metav1.ListOptions{LabelSelector: revisionLabel})
			if err != nil {
				return nil, fmt.Errorf("list what writers wrote: %w", err)
			}
			for i := range list.Items {
				object := &list.Items[i]
				if object.GetDeletionTimestamp() == nil && len(object.GetOwnerReferences()) == 0 {
					found[key{f.name, namespace, object.GetName()}] = object.GetLabels()[revisionLabel]
				}
			}
		}
	}
	problems := s.journal.check(found, s.mayBeGone)
	slices.Sort(problems)
	return problems, nil
}

// agree compares both sides. What differs while something is on its way is
// looked at again.
func (s *soak) agree(ctx context.Context) (comparison, error) {
	const tries = 5
	for try := 1; ; try++ {
		now, err := s.snapshot(ctx)
		if err != nil {
			return comparison{}, err
		}
		c := now.compare(kinds.All())
		if len(c.Problems) == 0 || try == tries {
			slices.Sort(c.Problems)
			return c, nil
		}
		pause(ctx, 5*time.Second)
	}
}

func sortedLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
