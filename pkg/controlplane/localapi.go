package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatorclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	apiregistrationlisters "k8s.io/kube-aggregator/pkg/client/listers/apiregistration/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

const (
	// availabilityInterval is how often it is looked whether a local API can be
	// served, unless it says otherwise.
	availabilityInterval = time.Minute
	// localAPIPriority orders the group behind Kubernetes' own.
	localAPIPriority = 100
)

// LocalAPI is a group and version that is served by a handler in this process,
// as if an aggregated API server did. It has an APIService like any other: a
// cluster that brings a server of its own for it puts its own in the place.
//
//	client ─► authentication, authorization, audit ─► aggregator
//	                                                    │ APIService without a service
//	                                                    ▼
//	                                                 Handler
type LocalAPI struct {
	GroupVersion schema.GroupVersion
	// Resources are shown by discovery.
	Resources []metav1.APIResource
	// Handler gets the requests for the resources, of which all is checked that
	// an API server checks but the verb: see request.RequestInfoFrom.
	Handler http.Handler
	// Available tells whether there is something to serve: without it, the API
	// does not exist. An error leaves it as it is. It is asked every Interval, a
	// minute if that is 0.
	Available func(ctx context.Context) (bool, error)
	Interval  time.Duration
	// Readers, if set, is a role that is made with the API.
	Readers *rbacv1.ClusterRole
}

func (a LocalAPI) validate() error {
	if a.GroupVersion.Group == "" || a.GroupVersion.Version == "" || a.Handler == nil || a.Available == nil || len(a.Resources) == 0 {
		return errors.New("each of LocalAPIs needs GroupVersion, Resources, Handler and Available")
	}
	return nil
}

// serviceName is that of the APIService.
func (a LocalAPI) serviceName() string { return a.GroupVersion.Version + "." + a.GroupVersion.Group }

func (a LocalAPI) path() string { return "/apis/" + a.GroupVersion.String() }

// localAPIs are those of one API server.
type localAPIs struct {
	list []LocalAPI
	// What follows is there once the server is built.
	services  apiregistrationlisters.APIServiceLister
	informer  cache.SharedIndexInformer
	discovery aggregated.ResourceManager
}

// intercept puts the handlers where the aggregator would look for a local API,
// behind all that is checked for every request.
func (l *localAPIs) intercept(front *genericapiserver.Config) {
	if len(l.list) == 0 {
		return
	}
	chain := front.BuildHandlerChainFunc
	front.BuildHandlerChainFunc = func(next http.Handler, c *genericapiserver.Config) http.Handler {
		return chain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, a := range l.list {
				if (r.URL.Path == a.path() || strings.HasPrefix(r.URL.Path, a.path()+"/")) && l.isOurs(a) {
					a.Handler.ServeHTTP(w, r)
					return
				}
			}
			next.ServeHTTP(w, r)
		}), c)
	}
}

// isOurs tells whether the API exists, and nobody else serves it.
func (l *localAPIs) isOurs(a LocalAPI) bool {
	if l.services == nil {
		return false
	}
	service, err := l.services.Get(a.serviceName())
	return err == nil && fromHost(service) && service.Spec.Service == nil
}

// run keeps the APIServices as they should be until ctx ends.
func (l *localAPIs) run(ctx context.Context, config *rest.Config) error {
	services, err := aggregatorclient.NewForConfig(config)
	if err != nil {
		return err
	}
	roles, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	woken := make(chan struct{}, 1)
	wake := func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}
	registration, err := l.informer.AddEventHandler(cache.FilteringResourceEventHandler{
		FilterFunc: l.concerns,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { wake() },
			UpdateFunc: func(_, _ any) { wake() },
			DeleteFunc: func(any) { wake() },
		},
	})
	if err != nil {
		return err
	}
	defer func() { _ = l.informer.RemoveEventHandler(registration) }()
	interval := availabilityInterval
	for _, a := range l.list {
		if a.Interval > 0 {
			interval = min(interval, a.Interval)
		}
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		for _, a := range l.list {
			if err := l.reconcile(ctx, a, services, roles); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Could not look after a local API, will try again", "api", a.GroupVersion)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-woken:
		}
	}
}

func (l *localAPIs) concerns(object any) bool {
	service, ok := lastKnown(object).(*apiregistrationv1.APIService)
	if !ok {
		return false
	}
	for _, a := range l.list {
		if a.serviceName() == service.Name {
			return true
		}
	}
	return false
}

func (l *localAPIs) reconcile(ctx context.Context, a LocalAPI, services aggregatorclient.Interface, roles kubernetes.Interface) error {
	available, err := a.Available(ctx)
	if err != nil {
		l.show(a)
		return fmt.Errorf("whether it can be served: %w", err)
	}
	apiServices := services.ApiregistrationV1().APIServices()
	have, err := apiServices.Get(ctx, a.serviceName(), metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	exists := err == nil
	switch {
	case exists && !fromHost(have):
		// Somebody serves it.
	case exists && !available:
		if err := apiServices.Delete(ctx, have.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID}}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	case !exists && available:
		if a.Readers != nil {
			if _, err := roles.RbacV1().ClusterRoles().Create(ctx, a.Readers, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
				return err
			}
		}
		made := &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: a.serviceName()}}
		a.fill(made)
		if _, err := apiServices.Create(ctx, made, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	case exists:
		want := have.DeepCopy()
		a.fill(want)
		if !reflect.DeepEqual(have, want) {
			if _, err := apiServices.Update(ctx, want, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) {
				return err
			}
		}
	}
	l.show(a)
	return nil
}

func (a LocalAPI) fill(service *apiregistrationv1.APIService) {
	metav1.SetMetaDataAnnotation(&service.ObjectMeta, api.AnnotationFromHost, "true")
	service.Spec = apiregistrationv1.APIServiceSpec{
		Group:                a.GroupVersion.Group,
		Version:              a.GroupVersion.Version,
		GroupPriorityMinimum: localAPIPriority,
		VersionPriority:      localAPIPriority,
	}
}

// show brings the discovery document up to date with the APIService.
func (l *localAPIs) show(a LocalAPI) {
	gv := metav1.GroupVersion(a.GroupVersion)
	if !l.isOurs(a) {
		l.discovery.RemoveGroupVersion(gv)
		return
	}
	document := apidiscoveryv2.APIVersionDiscovery{Version: gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
	for _, r := range a.Resources {
		scope := apidiscoveryv2.ScopeCluster
		if r.Namespaced {
			scope = apidiscoveryv2.ScopeNamespace
		}
		document.Resources = append(document.Resources, apidiscoveryv2.APIResourceDiscovery{
			Resource:         r.Name,
			ResponseKind:     &metav1.GroupVersionKind{Group: gv.Group, Version: gv.Version, Kind: r.Kind},
			Scope:            scope,
			SingularResource: r.SingularName,
			Verbs:            r.Verbs,
			ShortNames:       r.ShortNames,
			Categories:       r.Categories,
		})
	}
	l.discovery.AddGroupVersion(gv.Group, document)
	l.discovery.SetGroupVersionPriority(gv, localAPIPriority, localAPIPriority)
}
