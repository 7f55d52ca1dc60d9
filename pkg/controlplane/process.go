package controlplane

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/storage/wal"
	apimachineryversion "k8s.io/apimachinery/pkg/util/version"
	genericfeatures "k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/rest"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"

	"github.com/sublet-dev/sublet/pkg/version"

	// Queues need no timers of their own.
	_ "github.com/sublet-dev/sublet/pkg/controlplane/queuemetrics"
	// The feature gates of Kubernetes register themselves.
	_ "k8s.io/kubernetes/pkg/features"
)

// walSegmentBytes is what etcd preallocates for a segment of its log, two at a
// time. Its default of 64 MB would be most of an empty tenant's disk.
const walSegmentBytes = 4 << 20

// process guards what the libraries keep once for a process: feature gates,
// the emulated version, the size of log segments. All control planes in one
// process share them, so the first one decides and the others must agree.
var process struct {
	sync.Mutex
	settings *processSettings
}

// processSettings are those of Options which count for the whole process.
type processSettings struct {
	emulated string
	gates    map[string]bool
}

// settleTime is how long after its start a control plane still does what it does
// once.
const settleTime = 30 * time.Second

// How much a heap may grow, in per cent, until it is collected, and what is
// allocated in a second by a process that is not idle.
const (
	busyGrowth = 50
	idleGrowth = 20
	busyRate   = 512 << 10
)

// Tune makes the garbage collector of this process collect at half the usual
// growth, and while the process is idle, at a fifth: a little more CPU for much
// less memory. It is for the one who owns the process, before Start: what is kept
// of a start then fills the holes that the rest of it left, instead of being
// spread over a heap twice as big.
func Tune() {
	debug.SetGCPercent(busyGrowth)
	p := &pace{growth: busyGrowth, at: time.Now(), allocated: allocated()}
	p.follow()
}

// pace is that of allocation. It is unreachable but for its finalizer, which so
// runs after each collection, without a timer.
type pace struct {
	growth    int
	at        time.Time
	allocated uint64
}

func (p *pace) follow() {
	runtime.SetFinalizer(p, func(p *pace) {
		p.collected(time.Now(), allocated(), debug.SetGCPercent)
		p.follow()
	})
}

// collected is told the time and all bytes ever allocated.
func (p *pace) collected(now time.Time, allocated uint64, set func(percent int) int) {
	wanted := idleGrowth
	if elapsed := now.Sub(p.at).Seconds(); float64(allocated-p.allocated) > busyRate*elapsed {
		wanted = busyGrowth
	}
	p.at, p.allocated = now, allocated
	if wanted != p.growth {
		p.growth = wanted
		set(wanted)
	}
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// Settle gives back what starting needed, now and once things have settled. It is
// for the one who owns the process, after Start has returned.
func Settle() {
	debug.FreeOSMemory()
	time.AfterFunc(settleTime, debug.FreeOSMemory)
}

// setProcess applies the settings that are global in the libraries. It is
// called before anything reads them.
func setProcess(o Options) error {
	effective, ok := compatibility.DefaultComponentGlobalsRegistry.EffectiveVersionFor(basecompatibility.DefaultKubeComponent).(basecompatibility.MutableEffectiveVersion)
	if !ok {
		return errors.New("the effective version of Kubernetes cannot be set")
	}
	emulated, err := parseEmulated(o.EmulatedVersion, effective)
	if err != nil {
		return err
	}
	wanted := processSettings{emulated: emulated.String(), gates: featureGates(o)}

	process.Lock()
	defer process.Unlock()
	if process.settings != nil {
		return process.settings.agree(wanted)
	}

	if err := knownGates(o.FeatureGates); err != nil {
		return err
	}
	effective.SetEmulationVersion(emulated)
	gate := utilfeature.DefaultMutableFeatureGate
	if err := gate.SetEmulationVersionAndMinCompatibilityVersion(effective.EmulationVersion(), effective.MinCompatibilityVersion()); err != nil {
		return fmt.Errorf("EmulatedVersion %q: %w", o.EmulatedVersion, err)
	}
	if err := gate.SetFromMap(wanted.gates); err != nil {
		return fmt.Errorf("FeatureGates: %w", err)
	}
	if err := compatibility.DefaultComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("setting feature gates and the emulated version: %w", err)
	}
	wal.SegmentSizeBytes = walSegmentBytes
	// The API server validates its logging options again for each instance.
	logsapi.ReapplyHandling = logsapi.ReapplyHandlingIgnoreUnchanged
	// Warnings are for people; our own clients would log them for each request.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	process.settings = &wanted
	return nil
}

func (s *processSettings) agree(other processSettings) error {
	if s.emulated != other.emulated {
		return fmt.Errorf("EmulatedVersion is %q, and this process already emulates %q: start another process for it", other.emulated, s.emulated)
	}
	if !maps.Equal(s.gates, other.gates) {
		return errors.New("FeatureGates differ from those that are set in this process: start another process for them")
	}
	return nil
}

// featureGates are those of the options on top of ours.
func featureGates(o Options) map[string]bool {
	gates := map[string]bool{
		// There is one API server: nobody needs a lease to find the others, and
		// each lease is a write with an fsync every few seconds.
		string(genericfeatures.APIServerIdentity):                   false,
		string(genericfeatures.UnknownVersionInteroperabilityProxy): false,
	}
	maps.Copy(gates, o.FeatureGates)
	return gates
}

func knownGates(gates map[string]bool) error {
	known := utilfeature.DefaultMutableFeatureGate.GetAll()
	var unknown []string
	for name := range gates {
		if _, ok := known[featuregate.Feature(name)]; !ok {
			unknown = append(unknown, fmt.Sprintf("%q", name))
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return fmt.Errorf("FeatureGates has %s, which Kubernetes %s does not know; known are %s",
		strings.Join(unknown, ", "), version.Kubernetes, strings.Join(names, ", "))
}

func parseEmulated(wanted string, effective basecompatibility.EffectiveVersion) (*apimachineryversion.Version, error) {
	binary := effective.BinaryVersion()
	newest := apimachineryversion.MajorMinor(binary.Major(), binary.Minor())
	if wanted == "" {
		return newest, nil
	}
	oldest := apimachineryversion.MustParse(version.OldestEmulated)
	parsed, err := apimachineryversion.Parse(strings.TrimPrefix(wanted, "v"))
	if err != nil || parsed.Patch() != 0 || parsed.LessThan(oldest) || parsed.GreaterThan(newest) {
		return nil, fmt.Errorf("EmulatedVersion is %q; known are %s", wanted, strings.Join(emulatedVersions(oldest, newest), ", "))
	}
	return apimachineryversion.MajorMinor(parsed.Major(), parsed.Minor()), nil
}

func emulatedVersions(oldest, newest *apimachineryversion.Version) []string {
	var versions []string
	for v := oldest; !v.GreaterThan(newest); v = v.OffsetMinor(1) {
		versions = append(versions, fmt.Sprintf("%d.%d", v.Major(), v.Minor()))
	}
	return versions
}
