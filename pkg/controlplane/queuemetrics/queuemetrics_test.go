package queuemetrics

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-base/metrics/legacyregistry"
)

// value of a metric of a queue, as /metrics has it.
func value(t *testing.T, metric, queue string) float64 {
	t.Helper()
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "workqueue_"+metric {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() != queue {
				continue
			}
			switch {
			case m.GetGauge() != nil:
				return m.GetGauge().GetValue()
			case m.GetCounter() != nil:
				return m.GetCounter().GetValue()
			default:
				return float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	t.Fatalf("there is no workqueue_%s of queue %q", metric, queue)
	return 0
}

func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !check(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func goroutines() string {
	buffer := make([]byte, 1<<20)
	return string(buffer[:runtime.Stack(buffer, true)])
}

// TestQueue holds that a queue shows what it does without a goroutine that looks
// at it all the time.
func TestQueue(t *testing.T) {
	// Metrics are of the process: other runs of this test have theirs.
	prefix := fmt.Sprintf("queue-%d", time.Now().UnixNano())
	busy, idle := prefix+"-0", prefix+"-1"
	before := runtime.NumGoroutine()
	queues := make([]*workqueue.Typed[string], 10)
	for i := range queues {
		queues[i] = workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[string]{Name: fmt.Sprintf("%s-%d", prefix, i)})
		defer queues[i].ShutDown()
	}
	if running := runtime.NumGoroutine() - before; running < len(queues) {
		t.Errorf("%d goroutines began for %d queues: is this package still needed?", running, len(queues))
	}
	eventually(t, "the queues' goroutines end", func() bool { return !strings.Contains(goroutines(), "updateUnfinishedWorkLoop") })

	q := queues[0]
	q.Add("a")
	q.Add("b")
	if got := value(t, "depth", busy); got != 2 {
		t.Errorf("the depth is %v, want 2", got)
	}
	a, _ := q.Get()
	b, _ := q.Get()
	eventually(t, "work is shown", func() bool { return value(t, "unfinished_work_seconds", busy) > 1 })
	total, longest := value(t, "unfinished_work_seconds", busy), value(t, "longest_running_processor_seconds", busy)
	if longest <= total/4 || longest >= total {
		t.Errorf("%v seconds are unfinished and the longest is %v", total, longest)
	}
	q.Done(a)
	q.Done(b)
	eventually(t, "nothing is worked on", func() bool {
		return value(t, "unfinished_work_seconds", busy) == 0 && value(t, "longest_running_processor_seconds", busy) == 0
	})
	for metric, want := range map[string]float64{"depth": 0, "adds_total": 2, "queue_duration_seconds": 2, "work_duration_seconds": 2} {
		if got := value(t, metric, busy); got != want {
			t.Errorf("workqueue_%s is %v, want %v", metric, got, want)
		}
	}
	p := globalMetricsProvider.(*provider)
	eventually(t, "the timer rests", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return !p.armed
	})
	if got := value(t, "unfinished_work_seconds", idle); got != 0 {
		t.Errorf("a queue without work has %v seconds of it", got)
	}
}

// TestFinish holds that of several items the one goes that was taken then.
func TestFinish(t *testing.T) {
	n := &name{provider: &provider{armed: true}}
	at := func(seconds int) time.Time { return time.Unix(1000+int64(seconds), 0) }
	for _, second := range []int{0, 10, 20} {
		n.take(at(second))
	}
	n.finish(at(11))
	n.finish(at(-1))
	if len(n.started) != 1 || !n.started[0].Equal(at(20)) {
		t.Errorf("left are %v", n.started)
	}
	n.finish(at(0))
	n.finish(at(0))
	if len(n.started) != 0 {
		t.Errorf("left are %v", n.started)
	}
}
