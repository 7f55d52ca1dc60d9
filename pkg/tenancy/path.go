package tenancy

import (
	"fmt"
	"slices"
	"strings"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// MaxDepth is how far below the root a tenant may be.
const MaxDepth = 20

// Reasons of a Broken path.
const (
	BrokenMissing  = "ParentMissing"
	BrokenReplaced = "ParentReplaced"
	BrokenDeleting = "ParentDeleting"
	BrokenCycle    = "Cycle"
	BrokenTooDeep  = "TooDeep"
)

// Broken says why there is no path from the root to a tenant. Until it is
// mended, nothing about the tenant may change: neither what it has nor what its
// members may do.
type Broken struct {
	// Reason is one of those above.
	Reason string
	// Tenant is where the path breaks: the one whose parent is not right.
	Tenant string
	// Message says what is wrong, and what to do.
	Message string
}

func (b *Broken) Error() string { return b.Message }

// Parent is the name of the tenant above another; empty above the root.
func Parent(t *api.Tenant) string {
	switch {
	case t.Name == api.RootTenant:
		return ""
	case t.Spec.Parent == "":
		return api.RootTenant
	}
	return t.Spec.Parent
}

// PathTo finds the tenants from the root to t, both included. The error is a
// *Broken, or one of lookup, which returns nil for a tenant that there is not.
// What is above t counts, not t: a tenant that is being deleted has a path, but
// nothing below it has.
func PathTo(t *api.Tenant, lookup func(name string) (*api.Tenant, error)) ([]*api.Tenant, error) {
	path := []*api.Tenant{t}
	for below := t; Parent(below) != ""; {
		name := Parent(below)
		if slices.ContainsFunc(path, func(p *api.Tenant) bool { return p.Name == name }) {
			return nil, cycle(path, name)
		}
		if len(path) > MaxDepth {
			return nil, &Broken{BrokenTooDeep, t.Name, fmt.Sprintf(
				"there are more than %d tenants above %q, which is as many as there may be: move it further up", MaxDepth, t.Name)}
		}
		parent, err := lookup(name)
		if err != nil {
			return nil, err
		}
		if broken := brokenAt(below, parent); broken != nil {
			return nil, broken
		}
		path = append(path, parent)
		below = parent
	}
	slices.Reverse(path)
	return path, nil
}

// brokenAt looks at one step of a path.
func brokenAt(below, parent *api.Tenant) *Broken {
	name := Parent(below)
	known := below.Status.Parent
	switch {
	case parent == nil && name == api.RootTenant:
		return &Broken{BrokenMissing, below.Name, fmt.Sprintf(
			"there is no Folder %q, the top of the tree: make it again, with the limits and members that it had", name)}
	case parent == nil:
		return &Broken{BrokenMissing, below.Name, fmt.Sprintf(
			"there is no tenant %q, the parent of %q: make it, or move %[2]q with `sublet move %[2]s NEW-PARENT`", name, below.Name)}
	case !parent.DeletionTimestamp.IsZero():
		return &Broken{BrokenDeleting, below.Name, fmt.Sprintf(
			"tenant %q, the parent of %q, is being deleted: move %[2]q with `sublet move %[2]s NEW-PARENT`, or delete it too", name, below.Name)}
	case name == api.RootTenant || known == nil || known.Name != name || known.UID == parent.UID:
		return nil
	case below.Annotations[api.AnnotationAcceptParent] == string(parent.UID):
		return nil
	}
	return &Broken{BrokenReplaced, below.Name, fmt.Sprintf(
		"tenant %q, the parent of %q, was deleted, and this is another of that name: if it is meant, run `sublet move %[2]s %[1]s`", name, below.Name)}
}

// cycle describes the ring that a path runs into.
func cycle(path []*api.Tenant, name string) *Broken {
	var ring []string
	for _, t := range path {
		if len(ring) > 0 || t.Name == name {
			ring = append(ring, t.Name)
		}
	}
	// The same words from whichever of them one looks.
	first := slices.Index(ring, slices.Min(ring))
	ring = slices.Concat(ring[first:], ring[:first])
	return &Broken{BrokenCycle, path[len(path)-1].Name, fmt.Sprintf(
		"the parents form a ring, %s, so that nothing leads to the root: move one of them with `sublet move %s NEW-PARENT`",
		strings.Join(append(ring, ring[0]), " below "), ring[0])}
}

// PathText is a path as people read it.
func PathText(path []string) string { return strings.Join(path, "/") }
