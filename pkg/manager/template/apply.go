package template

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/helm"
	"github.com/sublet-dev/sublet/pkg/template"
)

// bring applies one template in one tenant, as far as it gets. An error is one of
// writing the inventory; whatever is wrong with the template stands in its entry.
func (r *Reconciler) bring(ctx context.Context, s *round, t *target, ref *api.EffectiveTemplate) error {
	tmpl := &api.Template{}
	err := r.Client.Get(ctx, client.ObjectKey{Name: ref.Name}, tmpl)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read template %q: %w", ref.Name, err)
	}
	s.saw(tmpl)
	entry := s.entry(ref.Name)
	if !ref.Sync && entry.AppliedAt != nil {
		// What it made is the tenant's now.
		entry.State, entry.Reason, entry.Message, entry.Sync = api.TemplateApplied, reasonApplied, "", false
		return nil
	}
	if err != nil {
		s.fail(entry, &problem{reasonNoTemplate, fmt.Sprintf(
			"there is no template %q: create it, or take it out of the templates of tenant %q; what it made stays until then", ref.Name, ref.From), true})
		return nil
	}
	p, trouble := r.plan(ctx, t, s.tenant, tmpl, ref)
	if trouble != nil {
		s.fail(entry, trouble)
		return nil
	}
	if trouble := r.sameAgain(ctx, t, s.tenant, tmpl, ref, entry, p); trouble != nil {
		s.fail(entry, trouble)
		return nil
	}
	fresh := entry.AppliedAt == nil || entry.Revision != p.revision || entry.Sync != ref.Sync
	if fresh {
		// What is to be made is noted first: whatever happens, it can be found.
		entry.Objects = union(entry.Objects, p.identities())
		entry.Sync = ref.Sync
		if entry.State != api.TemplateFailed {
			entry.State, entry.Reason, entry.Message = api.TemplateApplying, reasonApplying, "objects are being made"
		}
		if err := r.write(ctx, s); err != nil {
			return err
		}
	}
	running, trouble := r.carryOut(ctx, s, t, ref, entry, p, fresh)
	switch {
	case trouble != nil && trouble.reason == reasonForbidden && t.isNew(r.Now()):
		// The API server may not know yet that the rights were given.
		s.lookIn(retryFirst)
		return nil
	case trouble != nil:
		s.fail(entry, trouble)
		return nil
	case running != "":
		entry.State, entry.Reason, entry.Message = api.TemplateApplying, reasonApplying, running
		s.lookIn(poll)
		return nil
	}
	if fresh {
		now := metav1.NewTime(r.Now())
		entry.AppliedAt = &now
	}
	entry.State, entry.Reason, entry.Message = api.TemplateApplied, reasonApplied, ""
	entry.ObservedGeneration, entry.Revision, entry.Chart = tmpl.Generation, p.revision, p.chart
	entry.Objects = p.identities()
	if ref.Sync {
		s.lookIn(resync)
	}
	return nil
}

// carryOut makes what is planned. It says what it waits for, if anything.
func (r *Reconciler) carryOut(ctx context.Context, s *round, t *target, ref *api.EffectiveTemplate, entry *api.AppliedTemplate, p *plan, fresh bool) (string, *problem) {
	install := entry.AppliedAt == nil
	if fresh {
		if trouble := ensureNamespace(ctx, t, p.makesNamespace); trouble != nil {
			return "", trouble
		}
		if running, trouble := r.hooks(ctx, t, p, p.due(before(), install)); running != "" || trouble != nil {
			return running, trouble
		}
	}
	var troubles []*problem
	comes := ""
	for _, object := range p.objects {
		trouble := r.put(ctx, s, t, ref, object)
		if trouble != nil && trouble.reason == reasonUnknownKind && p.defines(object.GroupVersionKind().GroupKind()) {
			comes = fmt.Sprintf("the kind %s of the template is not served yet", object.GetKind())
			continue
		}
		if trouble != nil {
			troubles = append(troubles, trouble)
		}
	}
	if len(troubles) > 0 {
		return "", together(troubles)
	}
	if comes != "" {
		return comes, nil
	}
	if fresh {
		if running, trouble := r.hooks(ctx, t, p, p.due(after(), install)); running != "" || trouble != nil {
			return running, trouble
		}
		if trouble := r.hooksDone(ctx, t, append(p.due(before(), install), p.due(after(), install)...)); trouble != nil {
			return "", trouble
		}
	}
	if !ref.Sync {
		return "", nil
	}
	if trouble := r.prune(ctx, s, t, ref.Name, entry.Objects, p.identities()); trouble != nil {
		return "", trouble
	}
	return "", nil
}

func ensureNamespace(ctx context.Context, t *target, name string) *problem {
	if name == "" {
		return nil
	}
	namespace := &unstructured.Unstructured{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	namespace.SetName(name)
	if err := t.client.Create(ctx, namespace, client.FieldOwner(api.TemplateOwner)); err != nil && !apierrors.IsAlreadyExists(err) {
		return trouble(namespace, err)
	}
	return nil
}

// put applies one object, unless it is known to be as it should.
func (r *Reconciler) put(ctx context.Context, s *round, t *target, ref *api.EffectiveTemplate, object *unstructured.Unstructured) *problem {
	id := template.Identity(object)
	intent, err := template.Revision(object.Object)
	if err != nil {
		return &problem{reasonError, err.Error(), true}
	}
	last, known := r.made.get(s.tenant.Name, id)
	known = known && last.template == ref.Name
	if ref.Sync {
		t.watch(ctx, s.tenant.Name, object.GroupVersionKind())
		if known && last.intent == intent && t.holds(object, last.version) {
			return nil
		}
	}
	if !known {
		there, trouble := r.lookAt(ctx, t, ref.Name, object)
		if trouble != nil {
			return trouble
		}
		if there && !ref.Sync {
			// An attempt before this one made it, and since then it is the tenant's.
			return nil
		}
	}
	sent := object.DeepCopy()
	options := []client.ApplyOption{client.FieldOwner(api.TemplateOwner)}
	if ref.Sync {
		options = append(options, client.ForceOwnership)
	}
	if err := t.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(sent), options...); err != nil {
		r.made.drop(s.tenant.Name, id)
		if meta.IsNoMatchError(err) {
			t.definitions.await(ctx, s.tenant.Name, object.GroupVersionKind().Group)
		}
		return trouble(object, err)
	}
	r.made.set(s.tenant.Name, id, written{template: ref.Name, intent: intent, version: sent.GetResourceVersion()})
	return nil
}

// lookAt says whether an object is there already. One that somebody else made is
// never taken over.
func (r *Reconciler) lookAt(ctx context.Context, t *target, name string, object *unstructured.Unstructured) (bool, *problem) {
	current := &metav1.PartialObjectMetadata{}
	current.SetGroupVersionKind(object.GroupVersionKind())
	err := t.client.Get(ctx, client.ObjectKeyFromObject(object), current)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, trouble(object, err)
	}
	if current.Labels[api.LabelTemplate] == name {
		return true, nil
	}
	whose := "the template has not made it"
	if other := current.Labels[api.LabelTemplate]; other != "" {
		whose = fmt.Sprintf("template %q made it", other)
	}
	return false, &problem{reasonTaken, fmt.Sprintf("%s is there already, and %s: delete it, give it the label %s=%s to hand it over, or rename it in the template",
		template.Name(object), whose, api.LabelTemplate, name), false}
}

// prune deletes what a template made and does not make any more. What no longer
// bears the template's label is somebody else's.
func (r *Reconciler) prune(ctx context.Context, s *round, t *target, name string, had, have []api.TemplateObject) *problem {
	var troubles []*problem
	for _, id := range slices.Backward(had) {
		if slices.ContainsFunc(have, func(o api.TemplateObject) bool { return same(o, id) }) {
			continue
		}
		if last, known := r.made.get(s.tenant.Name, id); known && last.template == name {
			r.made.drop(s.tenant.Name, id)
		}
		if err := deleteOurs(ctx, t, name, id); err != nil {
			object := &unstructured.Unstructured{}
			object.SetKind(id.Kind)
			object.SetName(id.Name)
			found := trouble(object, err)
			found.message = "delete what the template no longer makes: " + found.message
			troubles = append(troubles, found)
		}
	}
	if len(troubles) > 0 {
		return together(troubles)
	}
	return nil
}

func deleteOurs(ctx context.Context, t *target, name string, id api.TemplateObject) error {
	current := &metav1.PartialObjectMetadata{}
	current.SetGroupVersionKind(schema.FromAPIVersionAndKind(id.APIVersion, id.Kind))
	err := t.client.Get(ctx, client.ObjectKey{Namespace: id.Namespace, Name: id.Name}, current)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if current.Labels[api.LabelTemplate] != name || current.Annotations[helm.KeepAnnotation] == helm.Keep || !current.DeletionTimestamp.IsZero() {
		return nil
	}
	uid := current.UID
	return client.IgnoreNotFound(t.client.Delete(ctx, current,
		client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationBackground)))
}

// same says whether two are one object: its version in the API may change.
func same(a, b api.TemplateObject) bool {
	groupOf := func(o api.TemplateObject) string {
		return schema.FromAPIVersionAndKind(o.APIVersion, o.Kind).Group
	}
	return a.Kind == b.Kind && a.Namespace == b.Namespace && a.Name == b.Name && groupOf(a) == groupOf(b)
}

func union(had, more []api.TemplateObject) []api.TemplateObject {
	all := slices.Clone(had)
	for _, id := range more {
		if !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	return all
}

// together is all that is wrong, for the first reason.
func together(troubles []*problem) *problem {
	const most = 5
	messages := make([]string, 0, len(troubles))
	all := &problem{reason: troubles[0].reason, final: true}
	for _, one := range troubles {
		messages = append(messages, one.message)
		all.final = all.final && one.final
	}
	if more := len(messages) - most; more > 0 {
		messages = append(messages[:most], fmt.Sprintf("and %d more", more))
	}
	all.message = strings.Join(messages, "; ")
	return all
}

// trouble says in words for people why an object cannot be made.
func trouble(object *unstructured.Unstructured, err error) *problem {
	name := template.Name(object)
	var status apierrors.APIStatus
	switch {
	case meta.IsNoMatchError(err):
		unknown := &template.UnknownKind{Kind: object.GroupVersionKind()}
		return &problem{reasonUnknownKind, fmt.Sprintf("%s: %s", name, unknown), false}
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "cannot "):
		return &problem{reasonForbidden, fmt.Sprintf(
			"%s: %s; templates are applied with the rights of an admin of the namespace: take it out of the template", name, err), false}
	case apierrors.IsForbidden(err):
		return &problem{reasonForbidden, fmt.Sprintf("%s: %s", name, err), false}
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsConflict(err):
		return &problem{reasonRefused, fmt.Sprintf("%s: %s", name, err), false}
	case utilnet.IsConnectionRefused(err), utilnet.IsConnectionReset(err), utilnet.IsTimeout(err), errors.Is(err, context.DeadlineExceeded):
		return &problem{reasonUnreachable, fmt.Sprintf("%s: the API does not answer: %s", name, err), false}
	case errors.As(err, &status) && status.Status().Reason != "":
		return &problem{reasonRefused, fmt.Sprintf("%s: %s", name, err), false}
	}
	return &problem{reasonError, fmt.Sprintf("%s: %s", name, err), false}
}
