package engine

import (
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// target is what a reference points at. An empty name is all of a namespace,
// an empty namespace with it everything.
type target struct {
	side translate.Side
	kind schema.GroupKind
	types.NamespacedName
}

// index knows which object refers to which, and the virtual name behind each
// host name that has come up.
type index struct {
	now func() time.Time

	mu      sync.RWMutex
	holders map[request]holding
	targets map[target]map[request]translate.Ref
	// unreferenced is when the last Sync reference to a target went.
	unreferenced map[target]time.Time
	names        map[string]*knownName
}

type holding struct {
	refs []translate.Ref
	self types.NamespacedName
}

type knownName struct {
	virtual types.NamespacedName
	uses    int
}

func newIndex(now func() time.Time) *index {
	return &index{
		now:          now,
		holders:      map[request]holding{},
		targets:      map[target]map[request]translate.Ref{},
		unreferenced: map[target]time.Time{},
		names:        map[string]*knownName{},
	}
}

func targetOf(ref translate.Ref) target {
	return target{side: ref.Side, kind: ref.Kind, NamespacedName: types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}}
}

// set records what holder, whose virtual name is self, refers to, and returns
// the targets that must now be synced or need no longer be.
func (x *index) set(holder request, self types.NamespacedName, refs []translate.Ref) []target {
	x.mu.RLock()
	before, known := x.holders[holder]
	x.mu.RUnlock()
	if known && slices.Equal(before.refs, refs) {
		return nil
	}

	x.mu.Lock()
	defer x.mu.Unlock()
	before, known = x.holders[holder]
	if !known {
		x.learn(self)
	}
	touched := map[target]bool{}
	// New references first, so that names and targets in both are not
	// forgotten in between.
	added := map[target]translate.Ref{}
	for _, ref := range refs {
		to := targetOf(ref)
		merged := added[to]
		ref.Read, ref.Watch, ref.Sync = ref.Read || merged.Read, ref.Watch || merged.Watch, ref.Sync || merged.Sync
		added[to] = ref
		x.learnRef(ref)
	}
	for _, ref := range before.refs {
		to := targetOf(ref)
		if x.targets[to][holder].Sync && !added[to].Sync {
			touched[to] = true
		}
		delete(x.targets[to], holder)
		x.forgetRef(ref)
	}
	for to, ref := range added {
		if x.targets[to] == nil {
			x.targets[to] = map[request]translate.Ref{}
		}
		if ref.Sync && !x.syncedLocked(to) {
			touched[to] = true
			delete(x.unreferenced, to)
		}
		x.targets[to][holder] = ref
	}
	for _, ref := range before.refs {
		to := targetOf(ref)
		if len(x.targets[to]) == 0 {
			delete(x.targets, to)
		}
		if touched[to] && !x.syncedLocked(to) {
			x.unreferenced[to] = x.now()
		}
	}
	x.holders[holder] = holding{refs: refs, self: self}

	changed := make([]target, 0, len(touched))
	for to := range touched {
		changed = append(changed, to)
	}
	return changed
}

// drop forgets a holder.
func (x *index) drop(holder request) []target {
	x.mu.RLock()
	before, known := x.holders[holder]
	x.mu.RUnlock()
	if !known {
		return nil
	}
	changed := x.set(holder, before.self, nil)
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.holders[holder].refs) == 0 {
		delete(x.holders, holder)
		x.forget(translate.HostName(before.self.Namespace, before.self.Name))
	}
	return changed
}

// holdersOf returns what is recorded of a kind's objects.
func (x *index) holdersOf(k *kind) []request {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var all []request
	for holder := range x.holders {
		if holder.kind == k {
			all = append(all, holder)
		}
	}
	return all
}

// watchers returns who wants to know when a target changes.
func (x *index) watchers(to target) []request {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var all []request
	collect := func(to target) {
		for holder, ref := range x.targets[to] {
			if ref.Watch {
				all = append(all, holder)
			}
		}
	}
	collect(to)
	to.Name = ""
	collect(to)
	if to.Namespace != "" {
		to.Namespace = ""
		collect(to)
	}
	return all
}

// synced tells whether anybody refers to the target with Sync; if not, since
// when. The zero time is for what nobody has referred to yet.
func (x *index) synced(to target) (bool, time.Time) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.syncedLocked(to), x.unreferenced[to]
}

// settled forgets since when a target is unreferenced.
func (x *index) settled(to target) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.unreferenced, to)
}

func (x *index) syncedLocked(to target) bool {
	for _, ref := range x.targets[to] {
		if ref.Sync {
			return true
		}
	}
	return false
}

// virtualName is a translate.Names.
func (x *index) virtualName(host string) (types.NamespacedName, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if known := x.names[host]; known != nil {
		return known.virtual, true
	}
	return types.NamespacedName{}, false
}

func (x *index) learnRef(ref translate.Ref) {
	if ref.Side == translate.Virtual && ref.Name != "" && ref.Namespace != "" {
		x.learn(types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name})
	}
}

func (x *index) forgetRef(ref translate.Ref) {
	if ref.Side == translate.Virtual && ref.Name != "" && ref.Namespace != "" {
		x.forget(translate.HostName(ref.Namespace, ref.Name))
	}
}

func (x *index) learn(virtual types.NamespacedName) {
	if virtual.Name == "" {
		return
	}
	host := translate.HostName(virtual.Namespace, virtual.Name)
	if x.names[host] == nil {
		x.names[host] = &knownName{virtual: virtual}
	}
	x.names[host].uses++
}

func (x *index) forget(host string) {
	known := x.names[host]
	if known == nil {
		return
	}
	known.uses--
	if known.uses == 0 {
		delete(x.names, host)
	}
}
