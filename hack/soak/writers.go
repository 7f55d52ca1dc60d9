package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// writer changes objects that nobody else changes.
type writer struct {
	*soak
	number   int
	random   *rand.Rand
	revision int
}

func (w *writer) run(ctx context.Context) {
	all := forms()
	for ctx.Err() == nil {
		f := pick(w.random, all...)
		k := key{form: f.name, namespace: w.namespace(), name: w.name(f.name, f.most)}
		switch revision, free, unsure := w.journal.state(k, time.Now()); {
		case free && unsure:
			w.look(ctx, f, k)
		case free:
			w.write(ctx, f, k, revision)
		}
		pause(ctx, time.Duration(20+w.random.IntN(200))*time.Millisecond)
	}
}

// namespace of a writer's objects is one of two that all writers share.
func (w *writer) namespace() string { return namespaces()[w.number%len(namespaces())] }

func namespaces() []string { return []string{"soak-a", "soak-b"} }

func (w *writer) name(form string, most int) string {
	return fmt.Sprintf("%c%d-%d", 'a'+form[0]-'A', w.number, w.random.IntN(most))
}

// write does one thing to an object.
func (w *writer) write(ctx context.Context, f form, k key, revision string) {
	dice := w.random.IntN(100)
	switch {
	case revision == absent:
		w.create(ctx, f, k)
	case dice < 65:
		w.change(ctx, f, k)
	case dice < 85:
		w.delete(ctx, f, k)
	default:
		// Under the same name at once.
		if w.delete(ctx, f, k) {
			w.create(ctx, f, k)
		}
	}
}

// look finds out what became of a write that was not answered.
func (w *writer) look(ctx context.Context, f form, k key) {
	found, err := w.virtualObjects.Resource(f.resource).Namespace(k.namespace).Get(ctx, k.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		w.journal.learn(k, absent)
	case err == nil && found.GetDeletionTimestamp() != nil:
		w.journal.learn(k, absent)
	case err == nil:
		w.journal.learn(k, found.GetLabels()[revisionLabel])
	}
}

func (w *writer) next() string {
	w.revision++
	return fmt.Sprintf("%d-%d", w.number, w.revision)
}

// body is an object of a form with a revision.
func (w *writer) body(f form, k key, revision string) *unstructured.Unstructured {
	most := map[string]int{}
	for _, other := range forms() {
		most[other.name] = other.most
	}
	content := f.make(w.random, func(form string) string { return w.name(form, most[form]) })
	object := &unstructured.Unstructured{Object: content}
	labels := map[string]string{revisionLabel: revision}
	for _, field := range []string{"labels", "annotations"} {
		given, _ := content[field].(fields)
		delete(content, field)
		texts := map[string]string{}
		for name, value := range given {
			texts[name] = value.(string)
		}
		if field == "labels" {
			maps.Copy(labels, texts)
			continue
		}
		object.SetAnnotations(texts)
	}
	object.SetLabels(labels)
	object.SetName(k.name)
	object.SetNamespace(k.namespace)
	object.SetAPIVersion(f.resource.GroupVersion().String())
	object.SetKind(f.name)
	return object
}

func (w *writer) create(ctx context.Context, f form, k key) {
	revision := w.next()
	_, err := w.virtualObjects.Resource(f.resource).Namespace(k.namespace).Create(ctx, w.body(f, k, revision), metav1.CreateOptions{})
	w.note(k, revision, err)
}

// change tries the whole object anew, and what can always be changed if that is
// not allowed.
func (w *writer) change(ctx context.Context, f form, k key) {
	objects := w.virtualObjects.Resource(f.resource).Namespace(k.namespace)
	revision := w.next()
	body := w.body(f, k, revision)
	body.SetResourceVersion("")
	data, err := body.MarshalJSON()
	if err != nil {
		w.journal.refuse()
		return
	}
	_, err = objects.Patch(ctx, k.name, types.MergePatchType, data, metav1.PatchOptions{})
	if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
		w.journal.refuse()
		revision = w.next()
		data = []byte(`{"metadata":{"labels":{"` + revisionLabel + `":` + strconv.Quote(revision) + `}}}`)
		_, err = objects.Patch(ctx, k.name, types.MergePatchType, data, metav1.PatchOptions{})
	}
	if apierrors.IsNotFound(err) && w.mayBeGone(k) {
		w.journal.acknowledge(k, absent)
		return
	}
	w.note(k, revision, err)
}

func (w *writer) delete(ctx context.Context, f form, k key) bool {
	err := w.virtualObjects.Resource(f.resource).Namespace(k.namespace).Delete(ctx, k.name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) && w.mayBeGone(k) {
		err = nil
	}
	w.note(k, absent, err)
	return err == nil
}

// mayBeGone tells whether somebody else may have deleted the object.
func (s *soak) mayBeGone(k key) bool { return k.form == "Pod" && s.meddled.has(k.namespace, k.name) }

// note records how a write was answered.
func (w *writer) note(k key, revision string, err error) {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		w.journal.acknowledge(k, revision)
	case errors.As(err, &status) && status.Status().Code >= 400 && status.Status().Code < 500 && status.Status().Code != 408 && status.Status().Code != 429:
		w.journal.refuse()
	default:
		w.journal.lose(k, revision, time.Now())
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
