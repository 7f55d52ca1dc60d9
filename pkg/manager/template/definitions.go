package template

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
)

var crds = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// definitions tell when a kind may have come that a template waits for. They watch
// CustomResourceDefinitions from the first time that a kind is missing. A kind of
// an aggregated API is found when the template is tried again.
type definitions struct {
	ctx     context.Context
	client  metadata.Interface
	allowed func(context.Context, schema.GroupVersionResource) bool
	came    func(tenant string)

	mu sync.Mutex
	// waiting are the tenants that a kind of an API group was missing for. They stay:
	// to look once too often costs little.
	waiting  map[string]map[string]bool
	informer cache.SharedIndexInformer
}

// await has a tenant looked at when a kind of a group is defined, or was since it
// was found missing.
func (d *definitions) await(ctx context.Context, tenant, group string) {
	if d.missed(ctx, tenant, group) {
		d.came(tenant)
	}
}

// missed notes who waits. It says whether there is a definition already, of which
// nobody will be told again.
func (d *definitions) missed(ctx context.Context, tenant, group string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.informer == nil {
		if !d.allowed(ctx, crds) {
			return false
		}
		d.watch()
	}
	if d.waiting[group][tenant] {
		return false
	}
	if d.waiting[group] == nil {
		d.waiting[group] = map[string]bool{}
	}
	d.waiting[group][tenant] = true
	return slices.ContainsFunc(d.informer.GetStore().ListKeys(), func(name string) bool { return groupOf(name) == group })
}

func (d *definitions) forget(tenant string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, tenants := range d.waiting {
		delete(tenants, tenant)
	}
}

func (d *definitions) watch() {
	d.waiting = map[string]map[string]bool{}
	d.informer = metadatainformer.NewFilteredMetadataInformer(d.client, crds, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
	// Neither fails before the informer runs.
	_ = d.informer.SetTransform(func(object any) (any, error) {
		if o, ok := object.(*metav1.PartialObjectMetadata); ok {
			o.ManagedFields, o.Annotations, o.Labels = nil, nil, nil
		}
		return object, nil
	})
	_ = d.informer.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {
		// A virtual cluster may be away for a while; the informer tries again.
	})
	_, _ = d.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    d.defined,
		UpdateFunc: func(_, after any) { d.defined(after) },
	})
	go d.informer.RunWithContext(d.ctx)
}

// defined tells those who wait for the group of a definition.
func (d *definitions) defined(object any) {
	o, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return
	}
	d.mu.Lock()
	told := slices.Collect(maps.Keys(d.waiting[groupOf(o.Name)]))
	d.mu.Unlock()
	for _, tenant := range told {
		d.came(tenant)
	}
}

// groupOf is the API group of a definition, whose name is its plural and its group.
func groupOf(definition string) string {
	_, group, _ := strings.Cut(definition, ".")
	return group
}
