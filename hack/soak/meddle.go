package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/kinds"
)

// meddled remembers which pods an administrator deleted on the host: those that
// ran are then deleted in the tenant, too.
type meddled struct {
	mu   sync.Mutex
	pods map[string]bool
	// edits and deletions are how many there were.
	edits, deletions int
}

func newMeddled() *meddled { return &meddled{pods: map[string]bool{}} }

func (m *meddled) note(namespace, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pods[namespace+"/"+name] = true
}

func (m *meddled) has(namespace, name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pods[namespace+"/"+name]
}

func (m *meddled) count(edits, deletions int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.edits += edits
	m.deletions += deletions
}

// administrator edits and deletes synced objects on the host.
type administrator struct {
	*soak
	random *rand.Rand
}

func (a *administrator) run(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, a.meddleEvery)
		all := hostKinds()
		a.meddle(ctx, all[a.random.IntN(len(all))])
	}
}

// hostKind is what an administrator meddles with.
type hostKind struct {
	resource schema.GroupVersionResource
	// deletable kinds are made again without loss.
	deletable bool
}

// hostKinds are the kinds that begin in the tenant.
func hostKinds() []hostKind {
	var all []hostKind
	for _, kind := range kinds.All() {
		if kind.ToHost == nil {
			continue
		}
		all = append(all, hostKind{
			resource: kind.GroupVersionKind.GroupVersion().WithResource(kind.Resource),
			// A deleted claim would take its data with it, which nothing brings back.
			deletable: kind.Resource != "persistentvolumeclaims",
		})
	}
	return all
}

func (a *administrator) meddle(ctx context.Context, kind hostKind) {
	objects := a.hostObjects.Resource(kind.resource).Namespace(a.target.namespace)
	list, err := objects.List(ctx, metav1.ListOptions{LabelSelector: api.LabelComponent + "=" + api.ComponentSynced})
	if err != nil || len(list.Items) == 0 {
		return
	}
	object := &list.Items[a.random.IntN(len(list.Items))]
	if kind.deletable && a.random.IntN(4) == 0 {
		if kind.resource.Resource == "pods" {
			annotations := object.GetAnnotations()
			a.meddled.note(annotations[api.AnnotationVirtualNamespace], annotations[api.AnnotationVirtualName])
		}
		if objects.Delete(ctx, object.GetName(), metav1.DeleteOptions{}) == nil {
			a.meddled.count(0, 1)
		}
		return
	}
	edit := pick(a.random, a.edits(object)...)
	if _, err := objects.Patch(ctx, object.GetName(), types.MergePatchType, []byte(edit), metav1.PatchOptions{}); err == nil {
		a.meddled.count(1, 0)
	}
}

// edits are merge patches; some are not valid for the object, which does no
// harm.
func (a *administrator) edits(object *unstructured.Unstructured) []string {
	all := []string{
		`{"metadata":{"labels":null}}`,
		`{"metadata":{"annotations":null}}`,
		`{"metadata":{"labels":{"` + revisionLabel + `":"meddled"}}}`,
		`{"metadata":{"labels":{"host/own":"` + time.Now().Format("150405") + `"}}}`,
		`{"metadata":{"annotations":{"` + api.AnnotationVirtualUID + `":null}}}`,
	}
	return append(all, map[string][]string{
		"ConfigMap":           {`{"data":{"value":"meddled"}}`, `{"data":null}`, `{"data":{"value":"meddled"},"immutable":true}`},
		"Secret":              {`{"data":{"value":"bWVkZGxlZA=="}}`, `{"data":null}`, `{"data":null,"immutable":true}`},
		"Service":             {`{"spec":{"selector":{"app":"meddled"}}}`, `{"spec":{"ports":[{"name":"meddled","port":7}]}}`, `{"spec":{"sessionAffinity":"ClientIP"}}`},
		"EndpointSlice":       {`{"endpoints":null}`},
		"NetworkPolicy":       {`{"spec":{"podSelector":{}}}`},
		"PodDisruptionBudget": {`{"spec":{"minAvailable":7}}`},
		"Ingress":             {`{"spec":{"rules":null}}`},
	}[object.GetKind()]...)
}
