package syncer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// How long a Service waits for an earlier host Service of its name to go.
const (
	replaceTries = 20
	replacePause = 100 * time.Millisecond
)

// AllocateService makes or changes the host Service of svc and puts what the
// host decided (addresses, node ports) into svc, before the tenant's API
// server stores it. old is nil on create. It works before Run, too.
//
//	create ─► host Service made ─► svc filled in ─► stored in the tenant
//	                │                                   │ failed, never came
//	                └── an earlier try's is taken over  └─► the engine collects the
//	                                                        host Service after a while
func (s *Syncer) AllocateService(ctx context.Context, svc, old *corev1.Service, dryRun bool) error {
	if old != nil && equality.Semantic.DeepEqual(svc.Spec, old.Spec) {
		return nil // Labels and annotations follow by the engine.
	}
	tenant, err := s.theTenant(ctx)
	if err != nil {
		return err
	}
	a := allocation{
		syncer: s,
		tenant: tenant,
		kind:   kinds.Service(),
		input:  translate.Input[*corev1.Service]{Tenant: tenant, Virtual: svc.DeepCopy()},
		create: old == nil,
	}
	if dryRun {
		a.dryRun = []string{metav1.DryRunAll}
	}
	if !dryRun {
		s.hold(svc, old)
	}
	if err := a.run(ctx); err != nil {
		return a.rewrite(err)
	}
	if a.input.Host == nil || dryRun {
		// What a dry run allocates is made up: it is not even valid. The
		// tenant's own allocator makes up something better.
		return nil
	}
	decided, err := a.kind.Status(a.input)
	if err != nil {
		return err
	}
	decided.Spec.DeepCopyInto(&svc.Spec)
	return nil
}

// hold keeps the engine from making the host Service again what the stored
// virtual one says, while the new one is on its way.
func (s *Syncer) hold(svc, old *corev1.Service) {
	s.mu.Lock()
	e := s.engine
	s.mu.Unlock()
	if e == nil || !s.synced.Load() {
		return
	}
	name := types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}
	kind := corev1.SchemeGroupVersion.WithKind("Service").GroupKind()
	if old == nil {
		e.Hold(kind, name, nil)
		return
	}
	e.Hold(kind, name, old)
}

// inTenant tells whether the tenant has a Service of this name: admission comes
// before the API server looks.
func (s *Syncer) inTenant(ctx context.Context, namespace, name string) (bool, error) {
	s.mu.Lock()
	virtual := s.virtual
	s.mu.Unlock()
	if virtual == nil {
		return false, apierrors.NewServiceUnavailable(fmt.Sprintf("cannot tell yet whether there is a Service %q: try again", name))
	}
	_, err := virtual.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// allocation is one call of AllocateService.
type allocation struct {
	syncer *Syncer
	tenant translate.Tenant
	kind   translate.Kind[*corev1.Service]
	input  translate.Input[*corev1.Service]
	create bool
	dryRun []string
}

// run leaves in a.input.Host the host Service as it is then, or nil if the
// Service has no place on the host.
func (a *allocation) run(ctx context.Context) error {
	desired, err := a.kind.ToHost(a.input)
	if err != nil {
		return apierrors.NewForbidden(corev1.Resource("services"), a.input.Virtual.Name, err)
	}
	if desired == nil {
		return nil
	}
	if a.create {
		// What the name now stands for is not stored yet: the engine gives it
		// time, and the uid later.
		delete(desired.Annotations, api.AnnotationVirtualUID)
	}
	services := a.syncer.host.CoreV1().Services(a.tenant.HostNamespace)
	for range replaceTries {
		found, err := services.Get(ctx, desired.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			made, err := services.Create(ctx, desired, metav1.CreateOptions{DryRun: a.dryRun})
			if apierrors.IsAlreadyExists(err) {
				continue
			}
			if err != nil {
				return err
			}
			a.input.Host = made
			return nil
		case err != nil:
			return err
		}
		virtual, ours := a.tenant.Owns(found)
		if want := (types.NamespacedName{Namespace: a.input.Virtual.Namespace, Name: a.input.Virtual.Name}); !ours || virtual != want {
			return apierrors.NewForbidden(corev1.Resource("services"), a.input.Virtual.Name,
				fmt.Errorf("the name %q is taken on the host by an object that is not the tenant's: ask whoever runs the host to delete it", desired.Name))
		}
		done, err := a.takeOver(ctx, found, desired)
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(replacePause):
		}
	}
	return apierrors.NewServerTimeout(corev1.Resource("services"), "allocate", 1)
}

// takeOver changes a host Service that exists. If it is another one's (of an
// earlier virtual Service, or of a try with another address), it has it
// deleted and is not done.
func (a *allocation) takeOver(ctx context.Context, found, desired *corev1.Service) (done bool, err error) {
	services := a.syncer.host.CoreV1().Services(a.tenant.HostNamespace)
	replace := func() (bool, error) {
		if len(a.dryRun) > 0 {
			// The old one stays; addresses of the new one cannot be foretold.
			return true, nil
		}
		err := services.Delete(ctx, found.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &found.UID}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return false, err
		}
		return false, nil
	}
	if a.create && found.Annotations[api.AnnotationVirtualUID] != "" {
		exists, err := a.syncer.inTenant(ctx, a.input.Virtual.Namespace, a.input.Virtual.Name)
		if err != nil {
			return false, err
		}
		if exists {
			return false, apierrors.NewAlreadyExists(corev1.Resource("services"), a.input.Virtual.Name)
		}
		return replace()
	}
	if found.DeletionTimestamp != nil {
		return replace()
	}
	merged := found.DeepCopy()
	merged = a.kind.Merge(merged, desired)
	translate.MergeMeta(merged, desired)
	if equality.Semantic.DeepEqual(found, merged) {
		a.input.Host = found
		return true, nil
	}
	written, err := services.Update(ctx, merged, metav1.UpdateOptions{DryRun: a.dryRun})
	switch {
	case apierrors.IsConflict(err):
		return false, nil
	case apierrors.IsInvalid(err) && a.create:
		return replace()
	case err != nil:
		return false, err
	}
	a.input.Host = written
	return true, nil
}

// rewrite says what the host said in the tenant's names.
func (a *allocation) rewrite(err error) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return err
	}
	virtual := types.NamespacedName{Namespace: a.input.Virtual.Namespace, Name: a.input.Virtual.Name}
	host := translate.HostName(virtual.Namespace, virtual.Name)
	said := status.Status()
	said.Message = a.tenant.Rewrite(said.Message, func(name string) (types.NamespacedName, bool) { return virtual, name == host })
	if said.Details != nil {
		details := *said.Details
		if details.Name == host {
			details.Name = virtual.Name
		}
		said.Details = &details
	}
	if said.Code == http.StatusUnauthorized || said.Code == http.StatusNotFound {
		// These would speak of the syncer's own standing, not of the tenant's.
		return fmt.Errorf("the host answered: %s", said.Message)
	}
	return &apierrors.StatusError{ErrStatus: said}
}
