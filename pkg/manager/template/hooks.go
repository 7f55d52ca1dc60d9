package template

import (
	"context"
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/helm"
	"github.com/sublet-dev/sublet/pkg/template"
)

// stage is when hooks run: before the objects of a revision, or after them. The
// first revision in a tenant is an installation, each one after it an upgrade.
type stage struct{ install, upgrade helm.Moment }

func before() stage { return stage{helm.PreInstall, helm.PreUpgrade} }
func after() stage  { return stage{helm.PostInstall, helm.PostUpgrade} }

// due are the hooks of a stage, by weight.
func (p *plan) due(at stage, install bool) []helm.Hook {
	moment := at.upgrade
	if install {
		moment = at.install
	}
	var hooks []helm.Hook
	for _, hook := range p.hooks {
		if slices.Contains(hook.At, moment) {
			hooks = append(hooks, hook)
		}
	}
	return hooks
}

// hooks runs those of a stage one after the other, and says which it waits for.
// Each bears the revision, so that it runs once for each.
func (r *Reconciler) hooks(ctx context.Context, t *target, p *plan, due []helm.Hook) (string, *problem) {
	for _, hook := range due {
		running, trouble := r.hook(ctx, t, p.revision, hook)
		if running != "" || trouble != nil {
			return running, trouble
		}
	}
	return "", nil
}

func (r *Reconciler) hook(ctx context.Context, t *target, revision string, hook helm.Hook) (string, *problem) {
	name := template.Name(hook.Object)
	current := &unstructured.Unstructured{}
	current.SetGroupVersionKind(hook.Object.GroupVersionKind())
	err := t.client.Get(ctx, client.ObjectKeyFromObject(hook.Object), current)
	switch {
	case apierrors.IsNotFound(err):
		return r.startHook(ctx, t, revision, hook)
	case err != nil:
		return "", trouble(hook.Object, err)
	case current.GetLabels()[api.LabelTemplate] != hook.Object.GetLabels()[api.LabelTemplate]:
		return "", &problem{reasonTaken, fmt.Sprintf("the chart's hook %s is there already, and the template has not made it: delete it, or rename it", name), false}
	case !current.GetDeletionTimestamp().IsZero():
		return fmt.Sprintf("the hook %s of before is not gone yet", name), nil
	case current.GetAnnotations()[api.AnnotationRevision] != revision:
		if err := deleteHook(ctx, t, current); err != nil {
			return "", trouble(hook.Object, err)
		}
		return fmt.Sprintf("the hook %s of before is not gone yet", name), nil
	}
	done, failed := outcome(current)
	switch {
	case failed != "":
		if hook.DeleteFailed {
			if err := deleteHook(ctx, t, current); err != nil {
				return "", trouble(hook.Object, err)
			}
		}
		return "", &problem{reasonHookFailed, fmt.Sprintf(
			"the chart's hook %s failed: %s; delete it to have it run once more, or correct the template", name, failed), false}
	case !done:
		return fmt.Sprintf("the hook %s is not done yet", name), nil
	}
	return "", nil
}

func (r *Reconciler) startHook(ctx context.Context, t *target, revision string, hook helm.Hook) (string, *problem) {
	object := hook.Object.DeepCopy()
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[api.AnnotationRevision] = revision
	object.SetAnnotations(annotations)
	if err := t.client.Create(ctx, object, client.FieldOwner(api.TemplateOwner)); err != nil {
		return "", trouble(hook.Object, err)
	}
	if done, _ := outcome(object); done {
		return "", nil
	}
	return fmt.Sprintf("the hook %s is not done yet", template.Name(object)), nil
}

// hooksDone deletes the hooks that go when they have succeeded. That comes when
// all else is done: what is not there has not run yet.
func (r *Reconciler) hooksDone(ctx context.Context, t *target, due []helm.Hook) *problem {
	for _, hook := range due {
		if !hook.DeleteSucceeded {
			continue
		}
		if err := deleteHook(ctx, t, hook.Object); err != nil {
			return trouble(hook.Object, err)
		}
	}
	return nil
}

func deleteHook(ctx context.Context, t *target, object *unstructured.Unstructured) error {
	return client.IgnoreNotFound(t.client.Delete(ctx, object, client.PropagationPolicy(metav1.DeletePropagationBackground)))
}

// outcome says whether a hook is done, or how it failed. What is neither Job nor
// Pod is done when it is there.
func outcome(object *unstructured.Unstructured) (done bool, failed string) {
	kind := object.GroupVersionKind().GroupKind()
	switch kind {
	case batchv1.SchemeGroupVersion.WithKind("Job").GroupKind():
		conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
		for _, c := range conditions {
			condition, _ := c.(map[string]any)
			if condition["status"] != string(corev1.ConditionTrue) {
				continue
			}
			switch condition["type"] {
			case string(batchv1.JobComplete):
				return true, ""
			case string(batchv1.JobFailed):
				return false, fmt.Sprint(condition["message"])
			}
		}
		return false, ""
	case corev1.SchemeGroupVersion.WithKind("Pod").GroupKind():
		phase, _, _ := unstructured.NestedString(object.Object, "status", "phase")
		if phase == string(corev1.PodFailed) {
			return false, "see the log of the pod"
		}
		return phase == string(corev1.PodSucceeded), ""
	}
	return true, ""
}
