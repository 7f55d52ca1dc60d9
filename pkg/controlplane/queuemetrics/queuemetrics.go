// Package queuemetrics keeps the metrics of work queues without waking up an idle
// process for them. Who imports it gets it.
//
// client-go has a goroutine for each queue that twice a second says for how long
// items have been worked on, nothing as a rule. A control plane has some forty
// queues, and most of what it costs while it idles were wake-ups for that. Here
// those goroutines end, and one timer for all queues does the same for as long as
// there is something to say.
//
//	item begins (depth decreases) ──► started ──┐
//	                                            ├─► every half second, while any
//	item ends (duration observed) ──► finished ─┘   is worked on: both gauges
//
// All names, labels and values are upstream's: see package
// k8s.io/component-base/metrics/prometheus/workqueue.
package queuemetrics

import (
	"runtime"
	"strings"
	"sync"
	"time"
	_ "unsafe" // For go:linkname.

	"k8s.io/client-go/util/workqueue"

	// It must have set its provider before this package wraps it.
	_ "k8s.io/component-base/metrics/prometheus/workqueue"
)

// period is that of client-go's goroutines.
const period = 500 * time.Millisecond

// globalMetricsProvider is what queues ask that name no provider. It can be set
// once, and component-base does, whose provider cannot be had otherwise.
//
//go:linkname globalMetricsProvider k8s.io/client-go/util/workqueue.globalMetricsProvider
var globalMetricsProvider workqueue.MetricsProvider

func init() {
	globalMetricsProvider = &provider{MetricsProvider: globalMetricsProvider, names: map[string]*name{}}
}

// provider adds to upstream's metrics what is worked on.
type provider struct {
	workqueue.MetricsProvider

	mu    sync.Mutex
	names map[string]*name
	// armed tells that the timer runs.
	armed bool
}

// name is that of one queue, or of several of which nobody sees the sum but here.
type name struct {
	provider *provider
	// started is when the items were taken that are worked on.
	started []time.Time
	// shown tells that the gauges are not zero.
	shown               bool
	unfinished, longest workqueue.SettableGaugeMetric
}

func (p *provider) of(queue string) *name {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.names[queue] == nil {
		p.names[queue] = &name{
			provider:   p,
			unfinished: p.MetricsProvider.NewUnfinishedWorkSecondsMetric(queue),
			longest:    p.MetricsProvider.NewLongestRunningProcessorSecondsMetric(queue),
		}
	}
	return p.names[queue]
}

// NewDepthMetric counts the items that wait. It sees each that is taken.
func (p *provider) NewDepthMetric(queue string) workqueue.GaugeMetric {
	return depth{p.MetricsProvider.NewDepthMetric(queue), p.of(queue)}
}

// NewWorkDurationMetric sees each item that is done.
func (p *provider) NewWorkDurationMetric(queue string) workqueue.HistogramMetric {
	return duration{p.MetricsProvider.NewWorkDurationMetric(queue), p.of(queue)}
}

// NewUnfinishedWorkSecondsMetric ends the goroutine that sets it.
func (p *provider) NewUnfinishedWorkSecondsMetric(string) workqueue.SettableGaugeMetric {
	return ending{}
}

// NewLongestRunningProcessorSecondsMetric is set by the same goroutine.
func (p *provider) NewLongestRunningProcessorSecondsMetric(string) workqueue.SettableGaugeMetric {
	return ending{}
}

type depth struct {
	workqueue.GaugeMetric
	name *name
}

func (d depth) Dec() {
	d.GaugeMetric.Dec()
	d.name.take(time.Now())
}

type duration struct {
	workqueue.HistogramMetric
	name *name
}

func (d duration) Observe(seconds float64) {
	d.HistogramMetric.Observe(seconds)
	d.name.finish(time.Now().Add(-time.Duration(seconds * float64(time.Second))))
}

// ending is a gauge that ends client-go's goroutine when that sets it.
type ending struct{}

func (ending) Set(float64) {
	pcs := make([]uintptr, 8)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, ".updateUnfinishedWorkLoop") {
			// Its deferred functions unlock the queue.
			runtime.Goexit()
		}
		if !more {
			return
		}
	}
}

func (n *name) take(now time.Time) {
	n.provider.mu.Lock()
	defer n.provider.mu.Unlock()
	n.started = append(n.started, now)
	n.provider.arm()
}

// finish forgets the item that was taken at a time, as well as that is known.
func (n *name) finish(start time.Time) {
	n.provider.mu.Lock()
	defer n.provider.mu.Unlock()
	nearest := -1
	for i, other := range n.started {
		if nearest < 0 || other.Sub(start).Abs() < n.started[nearest].Sub(start).Abs() {
			nearest = i
		}
	}
	if last := len(n.started) - 1; last >= 0 {
		n.started[nearest] = n.started[last]
		n.started = n.started[:last]
	}
}

// arm has the gauges set a period from now. The caller holds the lock.
func (p *provider) arm() {
	if !p.armed {
		p.armed = true
		time.AfterFunc(period, func() { p.show(time.Now()) })
	}
}

// show sets the gauges, and goes on while they are not all zero.
func (p *provider) show(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = false
	for _, n := range p.names {
		if len(n.started) == 0 && !n.shown {
			continue
		}
		total, longest := 0.0, 0.0
		for _, start := range n.started {
			age := now.Sub(start).Seconds()
			total += age
			longest = max(longest, age)
		}
		n.unfinished.Set(total)
		n.longest.Set(longest)
		n.shown = len(n.started) > 0
		if n.shown {
			p.arm()
		}
	}
}
