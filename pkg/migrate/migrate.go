package migrate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// Peer is a system to come from.
type Peer struct {
	// Name on the command line, and Title in sentences.
	Name, Title string
	// Groups are the peer's own API groups.
	Groups []string
	// Kinds are read, the peer's own first.
	Kinds []Kind
	// More are kinds to be read beside, as the objects of Kinds say; optional.
	More func(objects []*unstructured.Unstructured) []schema.GroupResource
	// gaps are the fields without a counterpart.
	gaps []gap
	// convert puts what becomes of objects into a result.
	convert func(objects []*unstructured.Unstructured, result *Result) error
}

// Kind is a kind that a peer works with.
type Kind struct {
	Group, Kind string
	// Resource is the plural.
	Resource string
	// Namespaced says that its objects are in namespaces.
	Namespaced bool
	// Versions that are understood, the preferred one first.
	Versions []string
}

// Result is what became of a peer's objects.
type Result struct {
	Templates []*api.Template
	// Tenants are ordered so that each comes after the one above it.
	Tenants []*api.Tenant
	Notes   []Note

	tenantNames, templateNames names
}

// Note tells what was not carried over, or not as it was, and what to do.
type Note struct {
	// About is the peer's object, as `Account "team"`.
	About string
	// Of is the object of the Result that the note concerns, as "Tenant/team";
	// empty for none.
	Of string
	// Message is a sentence without a full stop.
	Message string

	// namespace of the peer's object.
	namespace string
}

func (n Note) String() string { return n.About + ": " + n.Message }

// Peers are the systems that there are files about.
func Peers() []Peer { return []Peer{kiosk(), hnc(), capsule()} }

// Convert turns a peer's objects into Tenants and Templates. It returns an error
// for an object that is not as the peer's own API would have it.
func (p Peer) Convert(objects []*unstructured.Unstructured) (*Result, error) {
	seen := map[string]bool{}
	for _, object := range objects {
		if err := p.check(object); err != nil {
			return nil, err
		}
		// The same object in two versions is one.
		identity := object.GroupVersionKind().GroupKind().String() + " " + object.GetNamespace() + "/" + object.GetName()
		if seen[identity] {
			return nil, fmt.Errorf("%s is there twice: leave one of them out", describe(object))
		}
		seen[identity] = true
	}
	objects = slices.Clone(objects)
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(a.GetKind(), b.GetKind()), cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	result := &Result{tenantNames: newNames(validTenantName), templateNames: newNames(validTemplateName)}
	// A word that means something in the tree.
	result.tenantNames.taken[api.RootTenant] = true
	if err := p.convert(objects, result); err != nil {
		return nil, err
	}
	result.strangers(p, objects)
	if err := result.unknownParent(); err != nil {
		return nil, err
	}
	result.order()
	return result, nil
}

// check refuses what is no object, and a version of the peer's API that is not
// understood.
func (p Peer) check(object *unstructured.Unstructured) error {
	if object.GetKind() == "" || object.GetAPIVersion() == "" {
		return fmt.Errorf("there is an object without apiVersion and kind, named %q: is it one of Kubernetes'?", object.GetName())
	}
	if object.GetName() == "" {
		return fmt.Errorf("there is an object of kind %s without a name", object.GetKind())
	}
	gvk := object.GroupVersionKind()
	for _, kind := range p.Kinds {
		switch {
		case kind.Group != gvk.Group || kind.Kind != gvk.Kind:
		case !slices.Contains(kind.Versions, gvk.Version):
			return fmt.Errorf("%s is of version %q, and this understands %s: get it in one of these from a cluster that serves it",
				describe(object), gvk.GroupVersion(), strings.Join(kind.Versions, ", "))
		case kind.Namespaced && object.GetNamespace() == "":
			return fmt.Errorf("%s does not say in which namespace it is: write metadata.namespace", describe(object))
		}
	}
	return nil
}

// own says whether an object is of the peer's own API.
func (p Peer) own(object *unstructured.Unstructured) bool {
	return slices.Contains(p.Groups, object.GroupVersionKind().Group)
}

// strangers names the objects of kinds that nothing is made of.
func (r *Result) strangers(p Peer, objects []*unstructured.Unstructured) {
	for _, object := range objects {
		known := slices.ContainsFunc(p.Kinds, func(k Kind) bool {
			return k.Group == object.GroupVersionKind().Group && k.Kind == object.GetKind()
		})
		switch {
		case known:
		case p.own(object):
			r.note(object, "", "Sublet has no counterpart of this kind")
		case p.More == nil:
			r.note(object, "", "it is not one of %s's objects: it stays where it is", p.Title)
		}
	}
}

// note tells something about an object.
func (r *Result) note(about *unstructured.Unstructured, of string, format string, args ...any) {
	r.Notes = append(r.Notes, Note{About: describe(about), Of: of, Message: fmt.Sprintf(format, args...), namespace: about.GetNamespace()})
}

// order puts the templates by name and the tenants from the root downwards.
func (r *Result) order() {
	slices.SortFunc(r.Templates, func(a, b *api.Template) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(r.Tenants, func(a, b *api.Tenant) int { return cmp.Compare(a.Name, b.Name) })
	below := map[string][]*api.Tenant{}
	for _, tenant := range r.Tenants {
		below[tenancy.Parent(tenant)] = append(below[tenancy.Parent(tenant)], tenant)
	}
	var ordered []*api.Tenant
	var add func(name string)
	add = func(name string) {
		for _, tenant := range below[name] {
			ordered = append(ordered, tenant)
			add(tenant.Name)
		}
	}
	add(api.RootTenant)
	r.Tenants = ordered
}

// unknownParent would be a mistake of this package: a tenant that hangs on nothing
// would be lost. Convert never gives such a one away.
func (r *Result) unknownParent() error {
	known := map[string]bool{api.RootTenant: true}
	for _, tenant := range r.Tenants {
		known[tenant.Name] = true
	}
	for _, tenant := range r.Tenants {
		if !known[tenancy.Parent(tenant)] {
			return fmt.Errorf("tenant %q would be below %q, which nothing becomes", tenant.Name, tenancy.Parent(tenant))
		}
	}
	return nil
}

// describe names an object for people.
func describe(object *unstructured.Unstructured) string {
	if namespace := object.GetNamespace(); namespace != "" {
		return fmt.Sprintf("%s %q in namespace %q", object.GetKind(), object.GetName(), namespace)
	}
	return fmt.Sprintf("%s %q", object.GetKind(), object.GetName())
}

// ofKind are the objects of one kind.
func ofKind(objects []*unstructured.Unstructured, group, kind string) []*unstructured.Unstructured {
	return slices.DeleteFunc(slices.Clone(objects), func(o *unstructured.Unstructured) bool {
		return o.GroupVersionKind().Group != group || o.GetKind() != kind
	})
}
