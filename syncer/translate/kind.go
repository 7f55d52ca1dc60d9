package translate

import (
	"errors"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Object is any Kubernetes object.
type Object interface {
	metav1.Object
	runtime.Object
}

// ObjectList is any list of Kubernetes objects.
type ObjectList interface {
	metav1.ListInterface
	runtime.Object
}

// Kind tells the engine all about one kind. It is a struct of pure functions:
// none of them may call out, look at a clock, or change what it is given.
//
// A kind goes one of two ways. One that begins in the tenant has ToHost, and
// Status to bring back what the host made of it. One that begins on the host
// has ToVirtual only.
//
//	             ToHost, Merge, Subresources
//	virtual  ────────────────────────────────►  host
//	         ◄────────────────────────────────
//	             Bind, Status   or   ToVirtual
type Kind[T Object] struct {
	// GroupVersionKind and Resource (plural) name the kind on both sides.
	GroupVersionKind schema.GroupVersionKind
	Resource         string
	// Namespaced kinds live in namespaces in the tenant. On the host a kind
	// that begins in the tenant always lives in the tenant's host namespace.
	Namespaced bool
	// New makes an empty object, NewList an empty list.
	New     func() T
	NewList func() ObjectList

	// Rules is what the syncer must be allowed to do on the host in the
	// tenant's namespace, ClusterRules what it must read cluster-wide. The
	// chart's ClusterRoles are generated from them.
	Rules        []rbacv1.PolicyRule
	ClusterRules []rbacv1.PolicyRule

	// Optional kinds may be missing on either side, as custom ones are whose
	// definition somebody has to install: they are synced as long as both have
	// them. Those that are none of Kubernetes' own are *unstructured.Unstructured.
	// Other kinds may name them in Refs if these are Optional, too. Optional.
	Optional bool
	// Borrowed tells of an Optional kind that its definition is the host's, of
	// which the tenant gets a copy; see Definition. Where the tenant has a
	// definition of its own by that name, nothing crosses.
	Borrowed bool
	// Unused tells that the tenant's limits leave nothing of a kind that begins on
	// the host to be seen: it is not read then. Optional.
	Unused func(tenant Tenant) bool

	// WhenReferenced kinds cross only as far as some object that crosses names
	// them in a Ref with Sync. Optional.
	WhenReferenced bool
	// Shown tells which objects of a WhenReferenced kind that begins on the host
	// the tenant sees whether or not they are referred to. Optional.
	Shown func(tenant Tenant, host T) bool
	// Refs names what else must be read, watched or synced for an object to be
	// translated. Either argument may be nil. Optional.
	Refs func(virtual, host T) []Ref
	// ReadsVirtual and ReadsHost hold an empty object of each kind that Refs
	// names on that side and that is not itself a synced kind. Those of the host
	// are of the tenant's host namespace. Optional.
	ReadsVirtual []Object
	ReadsHost    []Object
	// MadeOnHost holds an empty object of each kind that Made names.
	MadeOnHost []Object
	// Made names what something on the host makes for an object that has crossed,
	// and that is brought to the tenant. Such objects are owned by the virtual
	// object, in the tenant, and by the host one, on the host. Refs must name both
	// sides of them with Watch. Only for kinds that begin in the tenant.
	// Optional.
	Made func(virtual T) []Made
	// MayRefuse holds an empty object of each kind in the tenant's host
	// namespace for which the host may refuse an object: when one changes, what
	// was refused is tried again. Optional.
	MayRefuse []Object

	// SeesFence tells that Refs may name, on the host, objects of this kind that
	// belong to the tenant's fence. Only for kinds that begin in the tenant.
	SeesFence bool

	// ToHost makes the host object of in.Virtual, from an empty one. Nil means
	// that the object has no place on the host (now); an error is shown to the
	// tenant as an Event. It is required for kinds that begin in the tenant.
	ToHost func(in Input[T]) (T, error)
	// Merge takes over into host, a copy of the object on the host, what may
	// change after creation from desired, what ToHost returned; it returns the
	// object to write. Labels, annotations and owner references are merged
	// afterwards by MergeMeta. Without it nothing else changes after creation.
	// Optional.
	Merge func(host, desired T) T
	// Replace tells whether desired differs from host, which somebody on the host
	// may have changed, in what cannot be changed: the host object is then
	// deleted and made anew. Optional.
	Replace func(host, desired T) bool
	// Subresources are updated on the host after the object itself. Optional.
	Subresources []Subresource[T]

	// Status returns in.Virtual, changed to what it should be, given in.Host:
	// its status, and what of its spec and metadata the host decides. It must
	// begin with a deep copy. Optional.
	Status func(in Input[T]) (T, error)
	// StatusSubresource tells that virtual status is written by its
	// subresource.
	StatusSubresource bool
	// Bind returns the Binding that the virtual object should get, or nil.
	// It is posted before Status is asked. Optional.
	Bind func(in Input[T]) *corev1.Binding
	// Tokens are the service account tokens that the object needs; see Token.
	// Optional.
	Tokens func(virtual T) []Token
	// Graceful kinds are deleted in two steps: a virtual object that is being
	// deleted stays until its host object is gone, which is deleted with the
	// same grace period.
	Graceful bool
	// Lost tells whether a Graceful virtual object whose host object has
	// vanished cannot be brought back: it is then deleted. If not, its host
	// object is made again. Optional.
	Lost func(tenant Tenant, virtual T) bool

	// ToVirtual makes the virtual object of in.Host; in.Virtual is the present
	// one or nil. Nil means that the tenant does not get to see it (now). It is
	// required for kinds that begin on the host. Cluster-scoped ones keep their
	// name.
	ToVirtual func(in Input[T]) (T, error)
	// HostByName tells that host objects are neither listed nor watched, but each
	// is read by its name, when something that crosses refers to it with Sync and
	// whenever that changes: the right to get is all that is needed then. Only
	// for cluster-scoped WhenReferenced kinds that begin on the host.
	HostByName bool
	// Parting makes of a virtual object what it must be without its host object: of
	// a Graceful one that only finalizers still keep, and, before it is deleted, of
	// one of a kind that begins on the host, as a status that lets finalizers go.
	// Optional.
	Parting func(virtual T) T
	// Unwatched tells that the virtual side of a kind that begins on the host
	// is not kept in memory: it is read when the host object changes, and what
	// is gone on the host is left to expire.
	Unwatched bool
	// PruneHost drops, from an object on its way into the cache, what ToVirtual
	// does not look at. Only for kinds that begin on the host. Optional.
	PruneHost func(host T)
}

// Subresource is a subresource of a host object that follows the virtual one.
type Subresource[T Object] struct {
	Name string
	// Merge is like Kind.Merge; the subresource is written when it changes
	// anything.
	Merge func(host, desired T) T
	// From, if set, makes desired from the whole input instead of ToHost.
	From func(in Input[T]) T
}

// Token is a service account token that the tenant's API issues, bound to the
// virtual object, and that the engine keeps fresh in a host Secret named
// TokenSecretName, owned by the host object.
type Token struct {
	// Key in the Secret.
	Key string
	// ServiceAccount in the object's virtual namespace.
	ServiceAccount string
	// Spec without the bound object, which the engine fills in.
	Spec authenticationv1.TokenRequestSpec
}

// Made is an object that something on the host makes for one that has crossed.
type Made struct {
	Kind schema.GroupKind
	// Virtual and Host are its names on the two sides.
	Virtual types.NamespacedName
	Host    string
	// ToVirtual makes the virtual object of the host's. It is only asked about
	// objects that bear none of our marks.
	ToVirtual func(tenant Tenant, names Names, host Object) (Object, error)
}

// Withdraw makes an error of ToHost say that the object must not stay on the
// host, if it is there. Without that, what runs goes on when a change is refused.
func Withdraw(err error) error { return &withdrawn{err} }

// IsWithdrawn tells whether an error is from Withdraw.
func IsWithdrawn(err error) bool {
	var w *withdrawn
	return errors.As(err, &w)
}

type withdrawn struct{ err error }

func (w *withdrawn) Error() string { return w.err.Error() }

func (w *withdrawn) Unwrap() error { return w.err }

// Input is all that a translation may look at. Nothing in it may be changed:
// it comes straight from the caches.
type Input[T Object] struct {
	Tenant Tenant
	// Virtual and Host are the two sides; nil where there is none.
	Virtual T
	Host    T
	// Refs holds what Kind.Refs named with Read and what exists.
	Refs Objects
	// Names gives virtual names for host names, for texts to be rewritten.
	Names Names
}

// Side is one of the two ends.
type Side bool

// The two ends, in this order.
const (
	Virtual Side = false
	Host    Side = true
)

// String returns "virtual" or "host".
func (s Side) String() string {
	if s == Host {
		return "host"
	}
	return "virtual"
}

// Ref names an object, on one side, that a translation depends on.
type Ref struct {
	Side Side
	Kind schema.GroupKind
	// Namespace on that side; on the host it is the tenant's, whatever is said.
	Namespace string
	// Name may be empty: all of the kind in the namespace, and everywhere if
	// Namespace is empty too. Such a reference may have Read and Watch, but not
	// Sync.
	Name string
	// Read puts the object into Input.Refs.
	Read bool
	// Watch translates again when the object changes.
	Watch bool
	// Sync brings the object to the other side, for kinds that cross
	// WhenReferenced.
	Sync bool
	// Optional tells that nobody may read the kind: there is none then. It must be
	// said of kinds that are Optional.
	Optional bool
}

// Any is a Kind of which nothing is known at compile time.
type Any = Kind[Object]

// Erase forgets the type of a Kind, so that kinds fit into one list.
func (k Kind[T]) Erase() Any {
	any := Any{
		GroupVersionKind:  k.GroupVersionKind,
		Resource:          k.Resource,
		Namespaced:        k.Namespaced,
		New:               func() Object { return k.New() },
		NewList:           k.NewList,
		Rules:             k.Rules,
		ClusterRules:      k.ClusterRules,
		Optional:          k.Optional,
		Borrowed:          k.Borrowed,
		Unused:            k.Unused,
		WhenReferenced:    k.WhenReferenced,
		ReadsVirtual:      k.ReadsVirtual,
		ReadsHost:         k.ReadsHost,
		MadeOnHost:        k.MadeOnHost,
		MayRefuse:         k.MayRefuse,
		SeesFence:         k.SeesFence,
		ToHost:            eraseInput(k.ToHost),
		Merge:             eraseMerge(k.Merge),
		Status:            eraseInput(k.Status),
		StatusSubresource: k.StatusSubresource,
		Graceful:          k.Graceful,
		ToVirtual:         eraseInput(k.ToVirtual),
		HostByName:        k.HostByName,
		Unwatched:         k.Unwatched,
	}
	if k.Parting != nil {
		any.Parting = func(virtual Object) Object { return orNil(k.Parting(as[T](virtual))) }
	}
	if k.Refs != nil {
		any.Refs = func(virtual, host Object) []Ref { return k.Refs(as[T](virtual), as[T](host)) }
	}
	for _, s := range k.Subresources {
		erased := Subresource[Object]{Name: s.Name, Merge: eraseMerge(s.Merge)}
		if s.From != nil {
			erased.From = func(in Input[Object]) Object { return orNil(s.From(typed[T](in))) }
		}
		any.Subresources = append(any.Subresources, erased)
	}
	if k.Bind != nil {
		any.Bind = func(in Input[Object]) *corev1.Binding { return k.Bind(typed[T](in)) }
	}
	if k.Tokens != nil {
		any.Tokens = func(virtual Object) []Token { return k.Tokens(as[T](virtual)) }
	}
	if k.Made != nil {
		any.Made = func(virtual Object) []Made { return k.Made(as[T](virtual)) }
	}
	if k.Lost != nil {
		any.Lost = func(tenant Tenant, virtual Object) bool { return k.Lost(tenant, as[T](virtual)) }
	}
	if k.Shown != nil {
		any.Shown = func(tenant Tenant, host Object) bool { return k.Shown(tenant, as[T](host)) }
	}
	if k.Replace != nil {
		any.Replace = func(host, desired Object) bool { return k.Replace(as[T](host), as[T](desired)) }
	}
	if k.PruneHost != nil {
		any.PruneHost = func(host Object) { k.PruneHost(as[T](host)) }
	}
	return any
}

// GroupKind is the kind without its version.
func (k Kind[T]) GroupKind() schema.GroupKind { return k.GroupVersionKind.GroupKind() }

func eraseInput[T Object](f func(Input[T]) (T, error)) func(Input[Object]) (Object, error) {
	if f == nil {
		return nil
	}
	return func(in Input[Object]) (Object, error) {
		out, err := f(typed[T](in))
		return orNil(out), err
	}
}

func eraseMerge[T Object](f func(host, desired T) T) func(host, desired Object) Object {
	if f == nil {
		return nil
	}
	return func(host, desired Object) Object { return orNil(f(as[T](host), as[T](desired))) }
}

func typed[T Object](in Input[Object]) Input[T] {
	return Input[T]{
		Tenant:  in.Tenant,
		Virtual: as[T](in.Virtual),
		Host:    as[T](in.Host),
		Refs:    in.Refs,
		Names:   in.Names,
	}
}

// as gives the typed nil for the nil interface.
func as[T Object](o Object) T {
	if o == nil {
		var none T
		return none
	}
	return o.(T)
}

// orNil gives the nil interface for the typed nil.
func orNil[T Object](t T) Object {
	var none T
	if any(t) == any(none) {
		return nil
	}
	return t
}
