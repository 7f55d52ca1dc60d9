package syncer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/engine"
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
// server stores it. old is nil on create. ctx must end when the request does:
// what has become of it is looked up then. It works before Run, too.
//
//	create ─► host Service made ─► svc filled in ─► stored in the tenant
//	                │                                   │ failed, never came
//	                └── an earlier try's is taken over  └─► the engine deletes the
//	                                                        host Service
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
	a.input.Virtual.Status = corev1.ServiceStatus{}
	if old != nil {
		a.input.Virtual.Status = old.Status
	}
	if dryRun {
		a.dryRun = []string{metav1.DryRunAll}
	} else {
		s.hold(ctx, svc)
	}
	if err := a.run(ctx); err != nil {
		return a.rewrite(err)
	}
	if a.input.Host == nil || dryRun {
		// What a dry run allocates is made up: it is not even valid. The
		// tenant's own allocator makes up something better.
		return nil
	}
	if e := s.running(); e != nil {
		e.Wrote(serviceKind(), a.input.Host)
	}
	decided, err := a.kind.Status(a.input)
	if err != nil {
		return err
	}
	decided.Spec.DeepCopyInto(&svc.Spec)
	return nil
}

// hold keeps the engine, until the request is over, from making the host Service
// again what the stored virtual one says.
func (s *Syncer) hold(ctx context.Context, svc *corev1.Service) {
	if e := s.running(); e != nil {
		context.AfterFunc(ctx, e.Hold(serviceKind(), types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}))
	}
}

// underWay tells whether a request for the Service is not over yet, as far as
// can be known.
func (s *Syncer) underWay(name types.NamespacedName) bool {
	e := s.running()
	return e == nil || e.UnderWay(serviceKind(), name)
}

// running is the engine, if it has read both sides.
func (s *Syncer) running() *engine.Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.synced.Load() {
		return nil
	}
	return s.engine
}

func serviceKind() schema.GroupKind { return corev1.SchemeGroupVersion.WithKind("Service").GroupKind() }

// inTenant returns the uid of the tenant's Service of this name, if there is
// one: admission comes before the API server looks.
func (s *Syncer) inTenant(ctx context.Context, namespace, name string) (types.UID, error) {
	s.mu.Lock()
	virtual := s.virtual
	s.mu.Unlock()
	if virtual == nil {
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("cannot tell yet whether there is a Service %q: try again", name))
	}
	found, err := virtual.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return found.UID, nil
}

// allocation is one call of AllocateService.
type allocation struct {
	syncer *Syncer
	tenant translate.Tenant
	kind   translate.Kind[*corev1.Service]
	input  translate.Input[*corev1.Service]
	create bool
	dryRun []string
	// askedAgain tells that the host said more than once that something is taken.
	askedAgain bool
}

// run leaves in a.input.Host the host Service as it is then, or nil if the
// Service has no place on the host.
func (a *allocation) run(ctx context.Context) error {
	desired, err := a.desired(nil)
	if err != nil || desired == nil {
		return err
	}
	services := a.services()
	for range replaceTries {
		found, err := services.Get(ctx, desired.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			made, err := services.Create(ctx, desired, metav1.CreateOptions{DryRun: a.dryRun})
			if err == nil {
				a.input.Host = made
				return nil
			}
			if apierrors.IsAlreadyExists(err) {
				continue
			}
			if !apierrors.IsInvalid(err) || !a.freeLeftovers(ctx, desired) {
				return err
			}
		case err != nil:
			return err
		default:
			done, err := a.takeOver(ctx, found)
			if done || err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(replacePause):
		}
	}
	return apierrors.NewServerTimeout(corev1.Resource("services"), "allocate", 1)
}

func (a *allocation) services() corev1client.ServiceInterface {
	return a.syncer.host.CoreV1().Services(a.tenant.HostNamespace)
}

// desired is what the host Service is to be, given what it is.
func (a *allocation) desired(found *corev1.Service) (*corev1.Service, error) {
	in := a.input
	in.Host = found
	desired, err := a.kind.ToHost(in)
	if err != nil {
		return nil, apierrors.NewForbidden(corev1.Resource("services"), a.input.Virtual.Name, err)
	}
	if desired != nil && a.create {
		// What the name now stands for is not stored yet: the engine gives it
		// time, and the uid later.
		delete(desired.Annotations, api.AnnotationVirtualUID)
	}
	return desired, nil
}

// takeOver changes a host Service that exists. If it is another one's (of an
// earlier virtual Service, or of a try with another address), it has it
// deleted and is not done.
func (a *allocation) takeOver(ctx context.Context, found *corev1.Service) (done bool, err error) {
	name := types.NamespacedName{Namespace: a.input.Virtual.Namespace, Name: a.input.Virtual.Name}
	if virtual, ours := a.tenant.Owns(found); (!ours || virtual != name) && !a.tenant.Strayed(found, name) {
		return false, apierrors.NewForbidden(corev1.Resource("services"), name.Name,
			fmt.Errorf("the name %q is taken on the host by an object that is not the tenant's: ask whoever runs the host to delete it", found.Name))
	}
	if a.create && found.Annotations[api.AnnotationVirtualUID] != "" {
		exists, err := a.syncer.inTenant(ctx, name.Namespace, name.Name)
		if err != nil {
			return false, err
		}
		if exists != "" {
			return false, apierrors.NewAlreadyExists(corev1.Resource("services"), name.Name)
		}
		return a.replace(ctx, found)
	}
	if found.DeletionTimestamp != nil {
		return a.replace(ctx, found)
	}
	desired, err := a.desired(found)
	if err != nil {
		return false, err
	}
	merged := a.kind.Merge(found.DeepCopy(), desired)
	translate.MergeMeta(merged, desired)
	if equality.Semantic.DeepEqual(found, merged) {
		a.input.Host = found
		return true, nil
	}
	written, err := a.services().Update(ctx, merged, metav1.UpdateOptions{DryRun: a.dryRun})
	switch {
	case err == nil:
		a.input.Host = written
		return true, nil
	case apierrors.IsConflict(err):
		return false, nil
	case !apierrors.IsInvalid(err):
		return false, err
	case a.create:
		return a.replace(ctx, found)
	case a.freeLeftovers(ctx, desired):
		return false, nil
	}
	return false, err
}

// replace deletes a host Service, to make it anew. In a dry run the old one
// stays: addresses of the new one cannot be foretold.
func (a *allocation) replace(ctx context.Context, found *corev1.Service) (done bool, err error) {
	if len(a.dryRun) > 0 {
		return true, nil
	}
	err = a.services().Delete(ctx, found.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &found.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return false, err
	}
	return false, nil
}

// freeLeftovers deletes host Services that have an address or a node port which
// is asked for, and whose virtual Service is gone: in a cluster, what a deleted
// Service had is free at once. It tells whether to ask again.
func (a *allocation) freeLeftovers(ctx context.Context, desired *corev1.Service) (again bool) {
	if len(a.dryRun) > 0 || !asksFor(desired) {
		return false
	}
	// What the engine has just deleted is free, too.
	again = !a.askedAgain
	a.askedAgain = true
	mine := labels.SelectorFromSet(labels.Set{api.LabelTenant: a.tenant.Name, api.LabelComponent: api.ComponentSynced})
	list, err := a.services().List(ctx, metav1.ListOptions{LabelSelector: mine.String()})
	if err != nil {
		return again
	}
	for i := range list.Items {
		found := &list.Items[i]
		virtual, ours := a.tenant.Owns(found)
		if !ours || found.Name == desired.Name || !collides(found, desired) {
			continue
		}
		uid := types.UID(found.Annotations[api.AnnotationVirtualUID])
		underWay := a.syncer.underWay(virtual)
		exists, err := a.syncer.inTenant(ctx, virtual.Namespace, virtual.Name)
		if err != nil || exists != "" && (uid == "" || exists == uid) {
			continue
		}
		if underWay {
			again = true // It may come yet, or have gone already.
			continue
		}
		if _, err := a.replace(ctx, found); err == nil {
			again = true
		}
	}
	return again
}

// asksFor tells whether a Service wants an address or a node port of its choice.
func asksFor(service *corev1.Service) bool {
	return service.Spec.ClusterIP != "" && service.Spec.ClusterIP != corev1.ClusterIPNone ||
		service.Spec.HealthCheckNodePort != 0 ||
		slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.NodePort != 0 })
}

// collides tells whether two Services cannot both have what one of them has and
// the other wants.
func collides(have, wants *corev1.Service) bool {
	ports := map[int32]bool{have.Spec.HealthCheckNodePort: true}
	for _, port := range have.Spec.Ports {
		ports[port.NodePort] = true
	}
	delete(ports, 0)
	return slices.ContainsFunc(have.Spec.ClusterIPs, func(ip string) bool {
		return ip != corev1.ClusterIPNone && (ip == wants.Spec.ClusterIP || slices.Contains(wants.Spec.ClusterIPs, ip))
	}) || ports[wants.Spec.HealthCheckNodePort] || slices.ContainsFunc(wants.Spec.Ports, func(p corev1.ServicePort) bool { return ports[p.NodePort] })
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
