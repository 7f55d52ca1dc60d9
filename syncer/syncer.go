package syncer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/engine"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// Options of a syncer; all are required.
type Options struct {
	// Config is what the manager says about the tenant.
	Config api.ControlPlaneConfig
	// Virtual reaches the tenant's API. It is looked at when Run is called, and
	// may be filled in until then: the tenant's API server needs the syncer to
	// boot.
	Virtual *rest.Config
	// Host reaches the host's API, with rights in the tenant's namespace.
	Host *rest.Config
}

// Syncer syncs one tenant.
type Syncer struct {
	options Options
	host    kubernetes.Interface

	synced atomic.Bool

	mu     sync.Mutex
	tenant *translate.Tenant
	// engine and virtual are there from Run on.
	engine  *engine.Engine
	virtual kubernetes.Interface
}

// New prepares a syncer; it talks to nobody yet.
func New(o Options) (*Syncer, error) {
	if o.Host == nil {
		return nil, errors.New("a syncer needs the host's API")
	}
	if o.Config.Tenant == "" || o.Config.HostNamespace == "" {
		return nil, fmt.Errorf("a syncer needs a tenant and its host namespace, not %q and %q", o.Config.Tenant, o.Config.HostNamespace)
	}
	host, err := newClient(o.Host)
	if err != nil {
		return nil, fmt.Errorf("host client: %w", err)
	}
	return &Syncer{options: o, host: host}, nil
}

func newClient(config *rest.Config) (kubernetes.Interface, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return kubernetes.NewForConfig(config)
}

// Run syncs until ctx ends.
func (s *Syncer) Run(ctx context.Context) error {
	if s.options.Virtual == nil {
		return errors.New("a syncer needs the tenant's API to run")
	}
	tenant, err := s.theTenant(ctx)
	if err != nil {
		return err
	}
	nodes, read := newHeartbeat(), make(chan struct{})
	e, err := engine.New(engine.Options{
		Tenant:  tenant,
		Kinds:   kinds.For(s.options.Config.CustomResources),
		Virtual: s.options.Virtual,
		Host:    s.options.Host,
		Synced: func() {
			s.synced.Store(true)
			close(read)
		},
		Changed: nodes.changed,
	})
	if err != nil {
		return err
	}
	virtual, err := newClient(s.options.Virtual)
	if err != nil {
		return fmt.Errorf("virtual client: %w", err)
	}
	s.mu.Lock()
	s.engine, s.virtual = e, virtual
	s.mu.Unlock()
	defer s.synced.Store(false)

	ctx, cancel := context.WithCancel(ctx)
	var beating sync.WaitGroup
	defer beating.Wait()
	defer cancel()
	beating.Go(func() {
		select {
		case <-read:
		case <-ctx.Done():
			return
		}
		nodes.run(ctx, virtual.CoordinationV1().Leases(corev1.NamespaceNodeLease), func() []*corev1.Node { return nodesFromHost(e) })
	})
	return e.Run(ctx)
}

// Ready tells what is missing until objects are synced; it does not block.
func (s *Syncer) Ready() error {
	if !s.synced.Load() {
		return errors.New("the tenant's and the host's objects have not been read yet: if it stays so, the log says what the syncer may not list")
	}
	return nil
}

// HostPod returns the name of the host pod of a virtual one. The error is
// NotFound for a pod that is not on the host, or not the tenant's.
func (s *Syncer) HostPod(ctx context.Context, virtualNamespace, name string) (string, error) {
	pod := types.NamespacedName{Namespace: virtualNamespace, Name: name}
	s.mu.Lock()
	e := s.engine
	s.mu.Unlock()
	if e != nil && s.synced.Load() {
		if host, ok := e.HostObjectName(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind(), pod); ok {
			return host, nil
		}
	}
	// Not in the cache (yet).
	tenant, err := s.theTenant(ctx)
	if err != nil {
		return "", err
	}
	missing := apierrors.NewNotFound(corev1.Resource("pods"), name)
	host, err := s.host.CoreV1().Pods(tenant.HostNamespace).Get(ctx, translate.HostName(virtualNamespace, name), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", missing
	}
	if err != nil {
		return "", err
	}
	if virtual, ours := tenant.Owns(host); !ours || virtual != pod {
		return "", missing
	}
	return host.Name, nil
}

// theTenant looks up, once, the owner of all that is made on the host.
func (s *Syncer) theTenant(ctx context.Context) (translate.Tenant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tenant != nil {
		return *s.tenant, nil
	}
	var owner *metav1.OwnerReference
	set, err := s.host.AppsV1().StatefulSets(s.options.Config.HostNamespace).Get(ctx, api.ControlPlaneName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		// The control plane runs outside of the host, as in tests: nobody but
		// the namespace owns what is made.
	case err != nil:
		return translate.Tenant{}, fmt.Errorf("look up the StatefulSet %q of the control plane in host namespace %q: %w", api.ControlPlaneName, s.options.Config.HostNamespace, err)
	default:
		owner = &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: set.Name, UID: set.UID}
	}
	tenant := translate.NewTenant(s.options.Config, owner)
	s.tenant = &tenant
	return tenant, nil
}
