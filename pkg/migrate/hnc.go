package migrate

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// hnc is the Hierarchical Namespace Controller,
// github.com/kubernetes-sigs/hierarchical-namespaces.
//
//	a namespace in a tree         Namespace tenant; one with others below it has
//	                              those below it here, too
//	HierarchyConfiguration        parent; deletionPolicy Cascade
//	SubnamespaceAnchor            the parent of the namespace that it names
//	HierarchicalResourceQuota     limits.quota, which bounds all below, too
//	RoleBinding                   members, for ClusterRole admin, edit and view;
//	                              others of a namespace with some below: a Template
//	Role, and objects of kinds    a Template of the namespace that they are in,
//	that HNCConfiguration         kept in force there and below
//	propagates
func hnc() Peer {
	return Peer{
		Name: "hnc", Title: "HNC",
		Groups: []string{hncGroup},
		Kinds: []Kind{
			{Group: hncGroup, Kind: "HierarchyConfiguration", Resource: "hierarchyconfigurations", Namespaced: true, Versions: []string{"v1alpha2"}},
			{Group: hncGroup, Kind: "SubnamespaceAnchor", Resource: "subnamespaceanchors", Namespaced: true, Versions: []string{"v1alpha2"}},
			{Group: hncGroup, Kind: "HierarchicalResourceQuota", Resource: "hierarchicalresourcequotas", Namespaced: true, Versions: []string{"v1alpha2"}},
			{Group: hncGroup, Kind: "HNCConfiguration", Resource: "hncconfigurations", Versions: []string{"v1alpha2"}},
			{Kind: "Namespace", Resource: "namespaces", Versions: []string{"v1"}},
			{Group: rbacv1.GroupName, Kind: "RoleBinding", Resource: "rolebindings", Namespaced: true, Versions: []string{"v1"}},
			{Group: rbacv1.GroupName, Kind: "Role", Resource: "roles", Namespaced: true, Versions: []string{"v1"}},
		},
		More:    propagatedByHNC,
		gaps:    hncGaps(),
		convert: convertHNC,
	}
}

const (
	hncGroup = "hnc.x-k8s.io"
	// hncSingleton is the only name under which HNC looks at a
	// HierarchyConfiguration.
	hncSingleton = "hierarchy"
	// hncInherited stands, as a label, on copies.
	hncInherited = hncGroup + "/inherited-from"
	// hncQuotaLabel stands on the ResourceQuotas that make up a
	// HierarchicalResourceQuota.
	hncQuotaLabel = hncGroup + "/hrq"
	// hncSubnamespaceOf stands, as an annotation, on a namespace that an anchor
	// made.
	hncSubnamespaceOf = hncGroup + "/subnamespace-of"
	// Annotations on an object: whether it is propagated, and to where.
	hncPropagate  = "propagate." + hncGroup + "/"
	hncNone       = hncPropagate + "none"
	hncAll        = hncPropagate + "all"
	hncSelect     = hncPropagate + "select"
	hncTreeSelect = hncPropagate + "treeSelect"
)

func hncGaps() []gap {
	return []gap{
		{path: "spec.labels", advice: hncMetadata},
		{path: "spec.annotations", advice: hncMetadata},
	}
}

const hncMetadata = "a tenant does not label its namespace or those below; what stands on namespaces that there are stays"

type hncHierarchy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Parent                 string `json:"parent"`
		AllowCascadingDeletion bool   `json:"allowCascadingDeletion"`
	} `json:"spec"`
	Status json.RawMessage `json:"status"`
}

type hncAnchor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              json.RawMessage `json:"spec"` // made empty by what generates clients
	Status            struct {
		State string `json:"status"`
	} `json:"status"`
}

type hncQuota struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Hard corev1.ResourceList `json:"hard"`
	} `json:"spec"`
	Status json.RawMessage `json:"status"`
}

type hncConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Resources []hncResource `json:"resources"`
	} `json:"spec"`
	Status json.RawMessage `json:"status"`
}

type hncResource struct {
	Group    string `json:"group"`
	Resource string `json:"resource"`
	Mode     string `json:"mode"`
}

// hncModes are the kinds that HNC propagates, with the mode.
func hncModes(objects []*unstructured.Unstructured) map[schema.GroupResource]string {
	modes := map[schema.GroupResource]string{}
	for _, object := range ofKind(objects, hncGroup, "HNCConfiguration") {
		configuration := &hncConfiguration{}
		if runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, configuration) != nil {
			continue // decode will say so
		}
		for _, resource := range configuration.Spec.Resources {
			switch resource.Mode {
			case "", "Propagate":
				modes[schema.GroupResource{Group: resource.Group, Resource: resource.Resource}] = "Propagate"
			case "AllowPropagate":
				modes[schema.GroupResource{Group: resource.Group, Resource: resource.Resource}] = resource.Mode
			}
		}
	}
	return modes
}

func propagatedByHNC(objects []*unstructured.Unstructured) []schema.GroupResource {
	modes := hncModes(objects)
	return slices.SortedFunc(maps.Keys(modes), func(a, b schema.GroupResource) int { return strings.Compare(a.String(), b.String()) })
}

// hncNode is a namespace in a tree.
type hncNode struct {
	name, parent string
	// about is what told of it first.
	about *unstructured.Unstructured
	// full is a namespace that no anchor made.
	full    bool
	cascade *unstructured.Unstructured
	below   []*hncNode
	tenant  *api.Tenant
}

type hncImport struct {
	*Result
	nodes map[string]*hncNode
	// said are the namespaces that the objects speak of in their own right.
	said map[string]bool
}

func convertHNC(objects []*unstructured.Unstructured, result *Result) error {
	h := &hncImport{Result: result, nodes: map[string]*hncNode{}, said: map[string]bool{}}
	if err := h.read(objects); err != nil {
		return err
	}
	if err := h.grow(); err != nil {
		return err
	}
	for _, object := range ofKind(objects, "", "Namespace") {
		if node := h.nodes[object.GetName()]; node != nil && node.tenant != nil {
			h.podSecurity(object, node.tenant)
		}
	}
	for _, object := range ofKind(objects, hncGroup, "HierarchicalResourceQuota") {
		quota := &hncQuota{}
		node := h.nodes[object.GetNamespace()]
		if err := h.decode(object, "", quota, hncGaps()); err != nil {
			return err
		}
		if node.tenant == nil {
			h.note(object, "", "its namespace becomes no tenant, and so it bounds nothing")
			continue
		}
		h.quota(object, "spec", node.tenant, corev1.ResourceQuotaSpec{Hard: quota.Spec.Hard})
	}
	return h.propagate(objects)
}

// node is the node of a namespace.
func (h *hncImport) node(name string, about *unstructured.Unstructured) *hncNode {
	if h.nodes[name] == nil {
		h.nodes[name] = &hncNode{name: name, about: about, full: true}
	}
	return h.nodes[name]
}

// read finds the namespaces of the trees, and their parents.
func (h *hncImport) read(objects []*unstructured.Unstructured) error {
	anchors := map[string]string{}
	for _, object := range ofKind(objects, hncGroup, "SubnamespaceAnchor") {
		anchor := &hncAnchor{}
		if err := h.decode(object, "", anchor, hncGaps()); err != nil {
			return err
		}
		if state := anchor.Status.State; state == "Conflict" || state == "Forbidden" {
			h.note(object, "", "its state is %s, so that it made no namespace: it is left out", state)
			continue
		}
		if other, twice := anchors[object.GetName()]; twice {
			return fmt.Errorf("%s: there is another anchor for that namespace in namespace %q: remove one of them", describe(object), other)
		}
		anchors[object.GetName()] = object.GetNamespace()
		node := h.node(object.GetName(), object)
		node.parent, node.full = object.GetNamespace(), false
		h.node(object.GetNamespace(), object)
		h.said[object.GetName()], h.said[object.GetNamespace()] = true, true
	}
	for _, object := range ofKind(objects, "", "Namespace") {
		h.said[object.GetName()] = true
		if parent := object.GetAnnotations()[hncSubnamespaceOf]; parent != "" && h.nodes[object.GetName()] == nil {
			node := h.node(object.GetName(), object)
			node.parent, node.full = parent, false
			h.node(parent, object)
		}
	}
	for _, object := range ofKind(objects, hncGroup, "HierarchicalResourceQuota") {
		h.node(object.GetNamespace(), object)
		h.said[object.GetNamespace()] = true
	}
	for _, object := range ofKind(objects, hncGroup, "HNCConfiguration") {
		if err := h.decode(object, "", &hncConfiguration{}, hncGaps()); err != nil {
			return err
		}
	}
	var alone []*unstructured.Unstructured
	for _, object := range ofKind(objects, hncGroup, "HierarchyConfiguration") {
		hierarchy := &hncHierarchy{}
		if err := h.decode(object, "", hierarchy, hncGaps()); err != nil {
			return err
		}
		if object.GetName() != hncSingleton {
			h.note(object, "", "HNC looks at the one named %q only, and so does this: it is left out", hncSingleton)
			continue
		}
		h.said[object.GetNamespace()] = true
		if hierarchy.Spec.Parent == "" && !hierarchy.Spec.AllowCascadingDeletion {
			alone = append(alone, object)
			continue
		}
		node := h.node(object.GetNamespace(), object)
		if hierarchy.Spec.AllowCascadingDeletion {
			node.cascade = object
		}
		if parent := hierarchy.Spec.Parent; parent != "" {
			if node.parent != "" && node.parent != parent {
				h.note(object, "", "an anchor in namespace %q says otherwise about the parent: %q counts, as HNC has it", node.parent, parent)
			}
			node.parent = parent
			h.node(parent, object)
		}
	}
	for _, object := range alone {
		if h.nodes[object.GetNamespace()] == nil {
			h.note(object, "", "its namespace is in no tree, and becomes no tenant")
		}
	}
	return nil
}

// grow makes the tenants, from the roots downwards.
func (h *hncImport) grow() error {
	all := slices.Sorted(maps.Keys(h.nodes))
	for _, name := range all {
		if ring := h.ring(name); ring != nil {
			return fmt.Errorf("%s: the namespaces %s are each other's parents: give one of them another parent in its HierarchyConfiguration",
				describe(h.nodes[name].about), strings.Join(ring, ", "))
		}
	}
	var roots []*hncNode
	for _, name := range all {
		node := h.nodes[name]
		if node.parent == "" {
			roots = append(roots, node)
			continue
		}
		h.nodes[node.parent].below = append(h.nodes[node.parent].below, node)
	}
	var plant func(node *hncNode, parent string, depth int)
	plant = func(node *hncNode, parent string, depth int) {
		node.tenant = h.namespace(node.about, node.name, parent)
		if node.tenant != nil {
			h.about(node, depth)
			parent = node.tenant.Name
			depth++
		} else if len(node.below) > 0 {
			h.note(node.about, "", "what is below namespace %q is put below the root", node.name)
		}
		for _, child := range node.below {
			plant(child, parent, depth)
		}
	}
	for _, node := range roots {
		plant(node, "", 1)
	}
	// What was told before it was known which tenant it is about.
	for i, note := range h.Notes {
		if node := h.nodes[note.namespace]; note.Of == "" && node != nil && node.tenant != nil {
			h.Notes[i].Of = tenantKey(node.tenant)
		}
	}
	return nil
}

// ring are the namespaces that one is above itself by; nil for none.
func (h *hncImport) ring(name string) []string {
	var path []string
	for at := name; at != ""; at = h.nodes[at].parent {
		if at == name && len(path) > 0 {
			return path
		}
		if slices.Contains(path, at) {
			return nil // it leads into a ring, and is none of it
		}
		path = append(path, at)
	}
	return nil
}

func (h *hncImport) about(node *hncNode, depth int) {
	of := tenantKey(node.tenant)
	if !h.said[node.name] {
		h.note(node.about, of, "nothing but this tells of namespace %q: it becomes a tenant without members and limits", node.name)
	}
	if depth == tenancy.MaxDepth+1 {
		h.note(node.about, of, "namespace %q would be %d below the root, and the most is %d: move it further up", node.name, depth, tenancy.MaxDepth)
	}
	if node.cascade == nil {
		return
	}
	node.tenant.Spec.DeletionPolicy = api.DeletionCascade
	for _, child := range node.below {
		if child.full {
			h.note(node.cascade, of, "spec.allowCascadingDeletion deleted subnamespaces only; deletionPolicy Cascade deletes the tenant of namespace %q, which is a full namespace, too", child.name)
		}
	}
}

// propagate makes members of RoleBindings, and templates of what else HNC copies
// from a namespace to those below it.
func (h *hncImport) propagate(objects []*unstructured.Unstructured) error {
	modes := hncModes(objects)
	templates := map[string]*api.Template{}
	for _, object := range objects {
		gvk := object.GroupVersionKind()
		if gvk.Group == hncGroup || gvk.Group == "" && gvk.Kind == "Namespace" || generated(object) {
			continue
		}
		node := h.nodes[object.GetNamespace()]
		switch {
		case node == nil || node.tenant == nil:
			h.leave(object, modes)
			continue
		case gvk.Group == rbacv1.GroupName && gvk.Kind == "RoleBinding":
			done, err := h.roleBinding(object, node)
			if err != nil {
				return err
			}
			if done {
				continue
			}
		case gvk.Group == rbacv1.GroupName && gvk.Kind == "Role":
		default:
			if !h.propagates(object, modes) {
				continue
			}
		}
		if len(node.below) == 0 || !h.everywhere(object, node) {
			continue // it stays where it is
		}
		template := templates[node.name]
		if template == nil {
			template = h.template(node.about, node.tenant.Name+"-propagated", fmt.Sprintf("What HNC propagated from namespace %s", node.name))
			templates[node.name] = template
		}
		if err := h.addManifest(template, manifest{about: object, content: object.Object, text: literal}); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(templates)) {
		template := templates[name]
		if len(template.Spec.Manifests) == 0 {
			h.discard(template)
			continue
		}
		node := h.nodes[name]
		h.applyTemplate(node.about, node.tenant, api.TemplateRef{Name: template.Name, Sync: true})
	}
	return nil
}

// generated says whether an object is in its namespace because something puts it
// into each: HNC itself, Kubernetes, or Sublet.
func generated(object *unstructured.Unstructured) bool {
	for key := range object.GetLabels() {
		if key == hncInherited || key == hncQuotaLabel || strings.HasPrefix(key, api.Prefix) {
			return true
		}
	}
	switch object.GetKind() + "/" + object.GetName() {
	case "ConfigMap/kube-root-ca.crt", "ConfigMap/istio-ca-root-cert", "ServiceAccount/default":
		return true
	}
	return false
}

// leave tells of an object outside of all trees that HNC would have nothing to do
// with. A cluster has many of those that it reads; a file has them on purpose.
func (h *hncImport) leave(object *unstructured.Unstructured, modes map[schema.GroupResource]string) {
	if _, known := modes[resourceOf(object)]; known || object.GroupVersionKind().Group == rbacv1.GroupName {
		return
	}
	h.note(object, "", "HNC does not propagate its kind, or its namespace is in no tree: it stays as it is")
}

func resourceOf(object *unstructured.Unstructured) schema.GroupResource {
	plural, _ := meta.UnsafeGuessKindToResource(object.GroupVersionKind())
	return plural.GroupResource()
}

// propagates says whether HNC copies an object of a kind that it is configured for.
func (h *hncImport) propagates(object *unstructured.Unstructured, modes map[schema.GroupResource]string) bool {
	switch annotations := object.GetAnnotations(); modes[resourceOf(object)] {
	case "Propagate":
		return true
	case "AllowPropagate":
		return annotations[hncAll] != "" || annotations[hncSelect] != "" || annotations[hncTreeSelect] != ""
	}
	h.leave(object, modes)
	return false
}

// everywhere says whether an object goes to all namespaces below its own; one that
// goes to some of them is told.
func (h *hncImport) everywhere(object *unstructured.Unstructured, node *hncNode) bool {
	annotations := object.GetAnnotations()
	if annotations[hncNone] == "true" {
		return false
	}
	for _, key := range []string{hncSelect, hncTreeSelect} {
		if selector := annotations[key]; selector != "" {
			h.note(object, tenantKey(node.tenant), "%s (%s) has no counterpart, a template applies to all below: it is in none; refer those that need it to a template of their own", key, selector)
			return false
		}
	}
	return true
}

// roleBinding makes members of a binding, where it gives a role that there is.
func (h *hncImport) roleBinding(object *unstructured.Unstructured, node *hncNode) (done bool, err error) {
	from := &rbacv1.RoleBinding{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, from); err != nil {
		return false, fmt.Errorf("%s: %w", describe(object), err)
	}
	annotations := object.GetAnnotations()
	if annotations[hncNone] == "true" || annotations[hncSelect] != "" || annotations[hncTreeSelect] != "" {
		return false, nil
	}
	role, known := roleOf(from.RoleRef.Name)
	if from.RoleRef.Kind == "ClusterRole" && known {
		if from.RoleRef.Name == "cluster-admin" {
			h.note(object, tenantKey(node.tenant), "the ClusterRole cluster-admin becomes the role admin, which may not change the fence of the namespace")
		}
		h.members(node.tenant, binding{about: object, field: "subjects", subjects: from.Subjects, role: role, namespace: object.GetNamespace()})
		return true, nil
	}
	if len(node.below) > 0 {
		h.note(object, tenantKey(node.tenant), "the %s %q is no role of members: the binding (of %s) is in a template, which is applied with the rights of a tenant's admin and so can give no more than these",
			from.RoleRef.Kind, from.RoleRef.Name, subjectsText(from.Subjects))
	}
	return false, nil
}
