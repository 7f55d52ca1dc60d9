package kinds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// For is All and what the tenant's limits name beside it. What All has already is
// left out, and of two entries for one kind the first counts.
func For(resources []api.CustomResource) []translate.Any {
	kinds := All()
	for _, resource := range resources {
		kind := Custom(resource).Erase()
		if !slices.ContainsFunc(kinds, func(k translate.Any) bool { return k.GroupKind() == kind.GroupKind() }) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// Custom is a custom resource that the tenant's limits name, for something on the
// host that acts upon it for all tenants. Nothing is known of it but what the
// limits say:
//
//	references        names of other objects, translated; those that something on
//	                  the host makes come back
//	selectors         confined to the object's own virtual namespace
//	host names        bounded by the tenant's limits
//	namespaces        the object's own, translated
//	all else          as it stands, unless it looks as if it led out of the tenant
//	metadata, status  as of every kind
//
// A description that cannot be read refuses every object.
func Custom(resource api.CustomResource) translate.Kind[*unstructured.Unstructured] {
	c, err := newCustom(resource)
	return translate.Kind[*unstructured.Unstructured]{
		GroupVersionKind: schema.GroupVersionKind{Group: resource.Group, Version: resource.Version, Kind: resource.Kind},
		Resource:         resource.Resource,
		Namespaced:       true,
		New:              newUntyped,
		NewList:          newUntypedList,
		// Of the Role that the manager makes.
		Rules:      []rbacv1.PolicyRule{rule(resource.Group, everything, resource.Resource)},
		Optional:   true,
		Borrowed:   true,
		MadeOnHost: c.madeOnHost(),
		Refs:       c.refs,
		Made:       c.made,
		ToHost: func(in translate.Input[*unstructured.Unstructured]) (*unstructured.Unstructured, error) {
			if err != nil {
				return nil, err
			}
			return c.toHost(in)
		},
		Merge:             customMerge,
		Status:            customStatus,
		StatusSubresource: true,
	}
}

// custom is a CustomResource with its paths read.
type custom struct {
	references                              []customReference
	selectors, labels, namespaces, verbatim []api.FieldPath
	hosts                                   []api.FieldPath
}

type customReference struct {
	path api.FieldPath
	kind schema.GroupKind
	// kindField is the name of the field beside that tells the kind, if any.
	kindField string
	fromHost  bool
}

func newCustom(resource api.CustomResource) (*custom, error) {
	c := &custom{}
	var errs []error
	parse := func(text string) api.FieldPath {
		path, err := api.ParseFieldPath(text)
		if err != nil {
			errs = append(errs, err)
		}
		return path
	}
	for _, r := range resource.References {
		reference := customReference{
			path: parse(r.Path), kind: schema.GroupKind{Group: r.Group, Kind: r.Kind}, fromHost: r.From == api.FromHost,
		}
		if r.KindPath != "" {
			beside := parse(r.KindPath)
			if !reference.path.Beside(beside) {
				errs = append(errs, fmt.Errorf("%q is no field of the same object as %q", r.KindPath, r.Path))
				continue
			}
			reference.kindField = beside[len(beside)-1].Name
		}
		if reference.fromHost && reference.kind != coreKind("Secret") && reference.kind != coreKind("ConfigMap") {
			errs = append(errs, fmt.Errorf("a %s cannot be brought from the host", r.Kind))
		}
		c.references = append(c.references, reference)
	}
	for _, list := range []struct {
		from []string
		to   *[]api.FieldPath
	}{
		{resource.SelectorPaths, &c.selectors},
		{resource.LabelPaths, &c.labels},
		{resource.NamespacePaths, &c.namespaces},
		{resource.VerbatimPaths, &c.verbatim},
		{resource.HostPaths, &c.hosts},
	} {
		for _, text := range list.from {
			*list.to = append(*list.to, parse(text))
		}
	}
	if err := errors.Join(errs...); err != nil {
		text := strings.ReplaceAll(err.Error(), "\n", "; ")
		return &custom{}, fmt.Errorf("objects of this kind cannot cross, because the limits of the tenant describe it wrongly: %s; ask whoever manages the tenant", text)
	}
	return c, nil
}

// namedField is a field that names an object.
type namedField struct {
	leaf
	name      string
	reference customReference
}

// named finds the references that count in content. A field counts once.
func (c *custom) named(content map[string]any) ([]namedField, error) {
	var all []namedField
	taken := map[string]bool{}
	for _, reference := range c.references {
		found, err := leaves(content, reference.path)
		if err != nil {
			return nil, err
		}
		for _, l := range found {
			if taken[l.at] {
				continue
			}
			if reference.kindField != "" {
				kind, _ := l.parent[reference.kindField].(string)
				if kind != "" && kind != reference.kind.Kind {
					continue
				}
			}
			name, ok := l.value.(string)
			if !ok {
				return nil, fmt.Errorf("%s holds no name, and the limits of the tenant say that it does: ask whoever manages the tenant", l.at)
			}
			if name == "" {
				continue
			}
			taken[l.at] = true
			all = append(all, namedField{l, name, reference})
		}
	}
	return all, nil
}

func (c *custom) refs(virtual, _ *unstructured.Unstructured) []translate.Ref {
	if virtual == nil {
		return nil
	}
	named, err := c.named(virtual.Object)
	if err != nil {
		return nil
	}
	r := refCollector{namespace: virtual.GetNamespace(), seen: map[translate.Ref]bool{}}
	for _, field := range named {
		ref := translate.Ref{Kind: field.reference.kind, Namespace: r.namespace, Name: field.name, Sync: true}
		if field.reference.fromHost {
			// Whether the tenant has one of its own by that name.
			ref.Sync, ref.Read, ref.Watch = false, true, true
			r.add(translate.Ref{Side: translate.Host, Kind: ref.Kind, Name: translate.HostName(r.namespace, field.name), Watch: true})
		}
		r.add(ref)
	}
	return r.refs
}

func (c *custom) madeOnHost() []translate.Object {
	var kinds []translate.Object
	comes := func(kind string) bool {
		return slices.ContainsFunc(c.references, func(r customReference) bool { return r.fromHost && r.kind == coreKind(kind) })
	}
	if comes("Secret") {
		kinds = append(kinds, &corev1.Secret{})
	}
	if comes("ConfigMap") {
		kinds = append(kinds, &corev1.ConfigMap{})
	}
	return kinds
}

func (c *custom) made(virtual *unstructured.Unstructured) []translate.Made {
	named, err := c.named(virtual.Object)
	if err != nil {
		return nil
	}
	var all []translate.Made
	for _, field := range named {
		if !field.reference.fromHost {
			continue
		}
		name := types.NamespacedName{Namespace: virtual.GetNamespace(), Name: field.name}
		all = append(all, translate.Made{
			Kind: field.reference.kind, Virtual: name, Host: translate.HostName(name.Namespace, name.Name),
			ToVirtual: func(tenant translate.Tenant, names translate.Names, host translate.Object) (translate.Object, error) {
				return madeToVirtual(tenant, names, name, host)
			},
		})
	}
	return all
}

// madeToVirtual is the tenant's copy of a Secret or ConfigMap that something on
// the host has made.
func madeToVirtual(tenant translate.Tenant, names translate.Names, name types.NamespacedName, host translate.Object) (translate.Object, error) {
	meta := translate.VirtualMeta(host, func(string) bool { return true })
	meta.Name, meta.Namespace = name.Name, name.Namespace
	for _, texts := range []map[string]string{meta.Labels, meta.Annotations} {
		for key, value := range texts {
			texts[key] = tenant.Rewrite(value, names)
		}
	}
	switch host := host.(type) {
	case *corev1.Secret:
		virtual := &corev1.Secret{ObjectMeta: meta, Type: host.Type, Immutable: host.Immutable}
		for key, value := range host.Data {
			if virtual.Data == nil {
				virtual.Data = map[string][]byte{}
			}
			virtual.Data[key] = bytes.Clone(value)
		}
		return virtual, nil
	case *corev1.ConfigMap:
		return &corev1.ConfigMap{ObjectMeta: meta, Data: maps.Clone(host.Data), BinaryData: maps.Clone(host.BinaryData), Immutable: host.Immutable}, nil
	}
	return nil, fmt.Errorf("a %T is not brought to the tenant", host)
}

func (c *custom) toHost(in translate.Input[*unstructured.Unstructured]) (*unstructured.Unstructured, error) {
	namespace := in.Virtual.GetNamespace()
	content := in.Virtual.DeepCopy().Object
	maps.DeleteFunc(content, func(name string, _ any) bool { return reservedField(name) })
	if err := c.hostsAllowed(in.Tenant, content); err != nil {
		return nil, err
	}
	named, err := c.named(content)
	if err != nil {
		return nil, err
	}
	// What is translated need not be looked at again.
	done := map[string]bool{}
	for _, field := range named {
		if messages := validation.IsDNS1123Subdomain(field.name); len(messages) > 0 {
			return nil, fmt.Errorf("%s: %q is no name of an object: %s", field.at, field.name, messages[0])
		}
		if field.reference.fromHost && tenantHasOwn(in.Refs, field.reference.kind, namespace, field.name) {
			return nil, translate.Withdraw(fmt.Errorf("%s: there is a %s %q, which something on the host would have to make: delete it, or name another", field.at, field.reference.kind.Kind, field.name))
		}
		field.set(translate.HostName(namespace, field.name))
		done[field.at] = true
	}
	if err := c.confine(in.Tenant, namespace, content, done); err != nil {
		return nil, err
	}
	for _, path := range c.verbatim {
		found, err := leaves(content, path)
		if err != nil {
			return nil, err
		}
		for _, l := range found {
			done[l.at] = true
		}
	}
	if err := inspect(in.Tenant.HostNamespace, "", content, done); err != nil {
		return nil, err
	}
	host := untypedToHost(in.Tenant, in.Virtual)
	maps.Copy(host.Object, content)
	return host, noteFields(host, content)
}

// tenantHasOwn tells whether the tenant itself has made an object.
func tenantHasOwn(refs translate.Objects, kind schema.GroupKind, namespace, name string) bool {
	if kind.Kind == "Secret" {
		own := translate.Find[*corev1.Secret](refs, translate.Virtual, namespace, name)
		return own != nil && !translate.FromHost(own)
	}
	own := translate.Find[*corev1.ConfigMap](refs, translate.Virtual, namespace, name)
	return own != nil && !translate.FromHost(own)
}

func (c *custom) hostsAllowed(tenant translate.Tenant, content map[string]any) error {
	for _, path := range c.hosts {
		found, err := leaves(content, path)
		if err != nil {
			return err
		}
		for _, l := range found {
			name, ok := l.value.(string)
			if !ok && !slices.Contains(tenant.Hosts, "*") {
				return fmt.Errorf("%s may not be used in this cluster; ask whoever manages the tenant", l.at)
			}
			if err := hostAllowed(tenant, l.at, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// confine keeps selectors and namespaces within the object's own virtual
// namespace.
func (c *custom) confine(tenant translate.Tenant, namespace string, content map[string]any, done map[string]bool) error {
	own := map[string]any{api.LabelTenant: tenant.Name, api.LabelVirtualNamespace: namespace}
	add := func(l leaf, to map[string]any) error {
		// Before ours are there.
		if err := inspect(tenant.HostNamespace, l.at, l.value, done); err != nil {
			return err
		}
		maps.Copy(to, own)
		done[l.at] = true
		return nil
	}
	for _, paths := range []struct {
		paths  []api.FieldPath
		labels bool
	}{{c.selectors, false}, {c.labels, true}} {
		for _, path := range paths.paths {
			found, err := leaves(content, path)
			if err != nil {
				return err
			}
			for _, l := range found {
				selector, ok := l.value.(map[string]any)
				if !ok {
					return fmt.Errorf("%s is no selector, and the limits of the tenant say that it is: ask whoever manages the tenant", l.at)
				}
				to := selector
				if !paths.labels {
					if to, _ = selector["matchLabels"].(map[string]any); to == nil {
						to = map[string]any{}
					}
				}
				if err := add(l, to); err != nil {
					return err
				}
				if !paths.labels {
					selector["matchLabels"] = to
				}
			}
		}
	}
	for _, path := range c.namespaces {
		found, err := leaves(content, path)
		if err != nil {
			return err
		}
		for _, l := range found {
			switch l.value {
			case "":
			case namespace:
				l.set(tenant.HostNamespace)
			default:
				return fmt.Errorf("%s: an object that is acted upon outside of this cluster can name its own namespace %q only, not %v", l.at, namespace, l.value)
			}
			done[l.at] = true
		}
	}
	return nil
}

// inspect refuses what looks as if it led out of the tenant: another namespace,
// what the control plane has on the host, our labels. at is the path of value.
func inspect(hostNamespace, at string, value any, done map[string]bool) error {
	if done[at] {
		return nil
	}
	switch value := value.(type) {
	case string:
		if controlPlaneName(hostNamespace, value) {
			return fmt.Errorf("%s: %q is what something of this cluster's control plane is called on the host; choose another name", at, value)
		}
		if strings.HasPrefix(value, api.Prefix) {
			return fmt.Errorf("%s: names under %s are Sublet's own", at, api.Prefix)
		}
	case []any:
		for i := range value {
			if err := inspect(hostNamespace, fmt.Sprintf("%s[%d]", at, i), value[i], done); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			below := at + "." + key
			if strings.HasPrefix(key, api.Prefix) {
				return fmt.Errorf("%s: names under %s are Sublet's own", below, api.Prefix)
			}
			if leadsOut(key, value[key]) && !wholly(below, value[key], done) {
				return fmt.Errorf("%s: an object that is acted upon outside of this cluster may not name namespaces; ask whoever manages the tenant to say what this field is for", below)
			}
			if err := inspect(hostNamespace, below, value[key], done); err != nil {
				return err
			}
		}
	}
	return nil
}

// wholly tells whether a field is done with, or all elements of its list are.
func wholly(at string, value any, done map[string]bool) bool {
	list, ok := value.([]any)
	if !ok || done[at] {
		return done[at]
	}
	for i := range list {
		if !done[fmt.Sprintf("%s[%d]", at, i)] {
			return false
		}
	}
	return true
}

// leadsOut tells whether a field that is called like one with namespaces says
// anything. An empty selector selects all there are.
func leadsOut(key string, value any) bool {
	switch key {
	case "namespace", "namespaces":
		switch value := value.(type) {
		case nil:
			return false
		case string:
			return value != ""
		case []any:
			return len(value) > 0
		}
		return true
	case "namespaceSelector":
		return value != nil
	}
	return false
}

// controlPlaneName tells what the manager calls something in the tenant's host
// namespace, with or without a namespace in front.
func controlPlaneName(hostNamespace, text string) bool {
	name := strings.TrimPrefix(text, hostNamespace+"/")
	switch name {
	case api.ControlPlaneName, api.ControlPlanePod, api.DNSServiceName, api.PKISecretName, api.WorkloadServiceAccountName,
		api.FenceEgressPolicy, api.FenceIngressPolicy, api.CustomResourcesRole:
		return true
	}
	return strings.HasPrefix(name, api.KubeconfigSecretPrefix) || strings.HasSuffix(name, "-"+api.ControlPlanePod)
}

// maxNotedFields is how many bytes are spent on noteFields. Of an object with more
// all is taken over, whoever said it.
const maxNotedFields = 32 << 10

// noteFields writes down which fields of the host object are the tenant's.
func noteFields(host *unstructured.Unstructured, content map[string]any) error {
	fields, err := json.Marshal(outline(content))
	if err != nil {
		return fmt.Errorf("note the fields: %w", err)
	}
	if len(fields) > maxNotedFields {
		return nil
	}
	annotations := host.GetAnnotations()
	annotations[api.AnnotationSyncedFields] = string(fields)
	meta := metav1.ObjectMeta{Annotations: annotations}
	translate.FitAnnotations(&meta)
	host.SetAnnotations(meta.Annotations)
	return nil
}

// outline is the shape of an object: its fields without what they hold.
func outline(content map[string]any) map[string]any {
	shape := map[string]any{}
	for name, value := range content {
		below, ok := value.(map[string]any)
		if !ok {
			shape[name] = true
			continue
		}
		shape[name] = outline(below)
	}
	return shape
}

// customMerge takes over what the tenant says, and takes away what it said
// before. What something on the host has filled in beside stays.
func customMerge(host, desired *unstructured.Unstructured) *unstructured.Unstructured {
	before := map[string]any{}
	if err := json.Unmarshal([]byte(host.GetAnnotations()[api.AnnotationSyncedFields]), &before); err != nil {
		return untypedMergeSpec(host, desired)
	}
	content := map[string]any{}
	for name, value := range desired.Object {
		if !reservedField(name) {
			content[name] = value
		}
	}
	for name := range before {
		if reservedField(name) {
			delete(before, name)
		}
	}
	mergeFields(host.Object, content, before)
	return host
}

// mergeFields lays want over have; fields that were synced go where want does not
// have them.
func mergeFields(have, want, before map[string]any) {
	for name, was := range before {
		shape, object := was.(map[string]any)
		haveBelow, ok := have[name].(map[string]any)
		_, wanted := want[name]
		switch {
		case wanted:
		case object && ok:
			mergeFields(haveBelow, map[string]any{}, shape)
			if len(haveBelow) == 0 {
				delete(have, name)
			}
		default:
			delete(have, name)
		}
	}
	for name, value := range want {
		wantBelow, object := value.(map[string]any)
		haveBelow, ok := have[name].(map[string]any)
		if !object || !ok {
			have[name] = runtime.DeepCopyJSONValue(value)
			continue
		}
		shape, _ := before[name].(map[string]any)
		mergeFields(haveBelow, wantBelow, shape)
	}
}

// customStatus brings back the status in the tenant's names.
func customStatus(in translate.Input[*unstructured.Unstructured]) (*unstructured.Unstructured, error) {
	virtual := in.Virtual.DeepCopy()
	status, ok := in.Host.Object["status"]
	if !ok {
		delete(virtual.Object, "status")
		return virtual, nil
	}
	virtual.Object["status"] = customStatusValue(in, "", runtime.DeepCopyJSONValue(status))
	return virtual, nil
}

func customStatusValue(in translate.Input[*unstructured.Unstructured], field string, value any) any {
	switch value := value.(type) {
	case string:
		if value == in.Tenant.HostNamespace {
			return in.Virtual.GetNamespace()
		}
		return in.Tenant.Rewrite(value, in.Names)
	case int64:
		if field == "observedGeneration" {
			return virtualGeneration(in, value)
		}
	case []any:
		for i := range value {
			value[i] = customStatusValue(in, "", value[i])
		}
	case map[string]any:
		for name := range value {
			value[name] = customStatusValue(in, name, value[name])
		}
	}
	return value
}

// leaf is a value that a path leads to.
type leaf struct {
	// at is where it is, as in ".spec.tls[0].secretName".
	at string
	// parent is the object whose field it is, or whose field's list has it.
	parent map[string]any
	value  any
	set    func(any)
}

// leaves finds all that a path leads to. A field that is not there leads nowhere;
// one of another shape than the path says is an error: something might cross
// untranslated.
func leaves(object map[string]any, path api.FieldPath) ([]leaf, error) {
	return leavesBelow("", object, path)
}

func leavesBelow(at string, object map[string]any, path api.FieldPath) ([]leaf, error) {
	step := path[0]
	at += "." + step.Name
	value, ok := object[step.Name]
	if !ok || value == nil {
		return nil, nil
	}
	if !step.Each {
		return leavesAt(leaf{at, object, value, func(v any) { object[step.Name] = v }}, path)
	}
	list, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("%s is no list, and the limits of the tenant say that it is: ask whoever manages the tenant", at)
	}
	var all []leaf
	for i := range list {
		found, err := leavesAt(leaf{fmt.Sprintf("%s[%d]", at, i), object, list[i], func(v any) { list[i] = v }}, path)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func leavesAt(l leaf, path api.FieldPath) ([]leaf, error) {
	if len(path) == 1 {
		return []leaf{l}, nil
	}
	below, ok := l.value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s is no object, and the limits of the tenant say that it is: ask whoever manages the tenant", l.at)
	}
	return leavesBelow(l.at, below, path[1:])
}
