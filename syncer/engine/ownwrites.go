package engine

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/sublet-dev/sublet/syncer/translate"
)

// unseenTime is how long the engine waits for a write of its own to come back.
// Watches take milliseconds; one that is broken is set up again meanwhile.
const unseenTime = 30 * time.Second

// ownWrites is what the engine has written of one source and the source's store
// does not show yet. Until it does, the store is known to be behind for that
// object: who acts on it writes the same once more.
//
//	written ─► remembered ─► the store shows it, or something later ─► forgotten
//	                         └ unseenTime is over ───────────────────► forgotten
//
// A write is shown when the object is there in its version or a later one. It
// is, too, when the store has come to that version by any other word, be it of
// another object or a bookmark: changes come in order, and a list is of one
// moment, so that the object has changed hands or gone since.
type ownWrites struct {
	mu     sync.Mutex
	byName map[types.NamespacedName]ownWrite
	swept  time.Time
}

// ownWrite is the last write of an object: of what version, or whether it was a
// deletion or a binding of the object with a uid. A server tells no version of
// these, but none of them can be taken back.
type ownWrite struct {
	version string

	uid   types.UID
	bound bool
	grace *int64

	until time.Time
}

// create makes an object, and remembers that.
func (s *source) create(ctx context.Context, object translate.Object) (translate.Object, error) {
	written, err := s.resource.create(ctx, object)
	if err == nil {
		s.wrote(written)
	}
	return written, err
}

// update writes an object, or a subresource of it, and remembers that.
func (s *source) update(ctx context.Context, object translate.Object, subresource string) (translate.Object, error) {
	written, err := s.resource.update(ctx, object, subresource)
	if err == nil {
		s.wrote(written)
	}
	return written, err
}

// delete deletes an object, and remembers that.
func (s *source) delete(ctx context.Context, object translate.Object, grace *int64) error {
	err := s.resource.delete(ctx, object, grace)
	if err == nil || apierrors.IsNotFound(err) {
		s.remember(nameOf(object), ownWrite{uid: object.GetUID(), grace: grace})
	}
	return err
}

// bind binds an object, and remembers that.
func (s *source) bind(ctx context.Context, object translate.Object, binding *corev1.Binding) error {
	err := s.resource.bind(ctx, object, binding)
	if err == nil {
		s.remember(nameOf(object), ownWrite{uid: object.GetUID(), bound: true})
	}
	return err
}

// isBound tells whether an object has been bound and the store does not show it.
func (s *source) isBound(object metav1.Object) bool {
	w, ok := s.remembered(nameOf(object))
	return ok && w.bound && w.uid == object.GetUID()
}

// showsBinding tells that an object is bound as far as the store knows.
func (s *source) showsBinding(object metav1.Object) {
	s.writes.mu.Lock()
	defer s.writes.mu.Unlock()
	if s.writes.byName[nameOf(object)].bound {
		delete(s.writes.byName, nameOf(object))
	}
}

// wrote remembers an object as the server answered it.
func (s *source) wrote(written metav1.Object) {
	version := written.GetResourceVersion()
	if _, err := resourceversion.CompareResourceVersion(version, version); err != nil {
		return // One cannot tell what comes after it.
	}
	s.remember(nameOf(written), ownWrite{version: version})
}

func (s *source) remember(name types.NamespacedName, w ownWrite) {
	if s.store == nil {
		return // Nothing is kept, so nothing is behind.
	}
	now := s.now()
	w.until = now.Add(unseenTime)
	s.writes.mu.Lock()
	defer s.writes.mu.Unlock()
	if s.writes.byName == nil {
		s.writes.byName = map[types.NamespacedName]ownWrite{}
	}
	s.writes.byName[name] = w
	if now.Sub(s.writes.swept) < unseenTime {
		return
	}
	// What nobody asked for again, of an object that went while no watch was on.
	s.writes.swept = now
	for other, w := range s.writes.byName {
		if !now.Before(w.until) {
			delete(s.writes.byName, other)
		}
	}
}

// remembered is the last write of an object that the store does not show yet.
func (s *source) remembered(name types.NamespacedName) (ownWrite, bool) {
	s.writes.mu.Lock()
	defer s.writes.mu.Unlock()
	w, ok := s.writes.byName[name]
	if ok && (s.shows(name, w) || !s.now().Before(w.until)) {
		delete(s.writes.byName, name)
		return ownWrite{}, false
	}
	return w, ok
}

// behind tells for how long at most to wait for the store to show what was
// written of an object; 0 if it does. A binding keeps nothing else from being
// done.
func (s *source) behind(name types.NamespacedName) time.Duration {
	w, ok := s.remembered(name)
	if !ok || w.bound {
		return 0
	}
	return w.until.Sub(s.now())
}

// shows tells whether the store has come as far as a write.
func (s *source) shows(name types.NamespacedName, w ownWrite) bool {
	cached := s.cached(name.Namespace, name.Name)
	switch {
	case w.version != "":
		return cached != nil && atLeast(cached.GetResourceVersion(), w.version) ||
			atLeast(s.store.LastStoreSyncResourceVersion(), w.version)
	case cached == nil || cached.GetUID() != w.uid:
		return true
	case w.bound:
		return false // Only its kind knows; see showsBinding.
	}
	return cached.GetDeletionTimestamp() != nil && !shorter(w.grace, cached.GetDeletionGracePeriodSeconds())
}

func atLeast(version, than string) bool {
	order, err := resourceversion.CompareResourceVersion(version, than)
	return err == nil && order >= 0
}

func nameOf(object metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()}
}
