package netpol

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"sigs.k8s.io/knftables"
)

const (
	// quiet is how long the enforcer waits for further changes before it acts.
	quiet = 20 * time.Millisecond
	// retry is how long it waits after a failure.
	retry = time.Second
	// refresh is how often the rules are written although nothing changed,
	// should somebody have deleted them.
	refresh = time.Minute
)

// Options say whose policies to enforce.
type Options struct {
	// Config leads to the cluster; it needs list and watch on pods, namespaces
	// and networkpolicies.
	Config *rest.Config
	// NodeName is the node in whose network namespace the enforcer runs. Empty
	// means that all pods are the node's.
	NodeName string
	// Leases is the directory in which the host-local plugin keeps a file for
	// each address, Bundles the one of the runtime's sandboxes. With both a pod's
	// address is known before its containers start, else when its status has it.
	Leases, Bundles string
}

// Run enforces the cluster's NetworkPolicies until the context ends, in the
// network namespace of the process, by means of the program nft. The rules stay
// in force when it ends: a fence does not open because its keeper stopped.
func Run(ctx context.Context, o Options) error {
	nft, err := knftables.New(knftables.InetFamily, TableName)
	if err != nil {
		return fmt.Errorf("nftables cannot be used (the program nft and root are needed): %w", err)
	}
	client, err := kubernetes.NewForConfig(o.Config)
	if err != nil {
		return fmt.Errorf("client for the cluster: %w", err)
	}
	return enforce(ctx, client, nft, o)
}

func enforce(ctx context.Context, client kubernetes.Interface, nft knftables.Interface, o Options) error {
	e := &enforcer{nft: nft, nodeName: o.NodeName, changed: make(chan struct{}, 1)}
	e.early = newEarly(o, e.signal)
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(dropUnused))
	e.pods = factory.Core().V1().Pods().Lister()
	e.namespaces = factory.Core().V1().Namespaces().Lister()
	e.policies = factory.Networking().V1().NetworkPolicies().Lister()
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().Pods().Informer(),
		factory.Core().V1().Namespaces().Informer(),
		factory.Networking().V1().NetworkPolicies().Informer(),
	} {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { e.signal() },
			UpdateFunc: func(any, any) { e.signal() },
			DeleteFunc: func(any) { e.signal() },
		}); err != nil {
			return fmt.Errorf("watch the cluster: %w", err)
		}
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return ignoreCancelled(ctx, fmt.Errorf("list %s: %w", kind, context.Cause(ctx)))
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.early.run(ctx) })
	group.Go(func() error { return e.run(ctx) })
	return group.Wait()
}

type enforcer struct {
	nft        knftables.Interface
	nodeName   string
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	policies   networkinglisters.NetworkPolicyLister
	early      *early
	changed    chan struct{}
	// applied is the transaction that was written last.
	applied string
}

func (e *enforcer) signal() {
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

func (e *enforcer) run(ctx context.Context) error {
	logger := klog.FromContext(ctx).WithName("netpol")
	ticker := time.NewTicker(refresh)
	defer ticker.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.changed:
			timer.Reset(quiet)
		case <-ticker.C:
			e.applied = ""
			timer.Reset(0)
		case <-timer.C:
			if err := e.apply(ctx); err != nil && ctx.Err() == nil {
				logger.Error(err, "Network policies are not enforced as they should be")
				timer.Reset(retry)
			}
		}
	}
}

// apply writes the rules if they differ from those written last.
func (e *enforcer) apply(ctx context.Context) error {
	in := Input{NodeName: e.nodeName}
	var errs [3]error
	in.Pods, errs[0] = e.pods.List(labels.Everything())
	in.Namespaces, errs[1] = e.namespaces.List(labels.Everything())
	in.Policies, errs[2] = e.policies.List(labels.Everything())
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("read caches: %w", err)
	}
	in.Pods = e.early.complete(in.Pods)
	ruleset, err := Compile(in)
	if err != nil {
		return err
	}
	tx := e.nft.NewTransaction()
	ruleset.addTo(tx)
	if tx.String() == e.applied {
		return nil
	}
	if err := e.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("write nftables rules: %w", err)
	}
	e.applied = tx.String()
	klog.FromContext(ctx).WithName("netpol").V(1).Info("Wrote rules",
		"pods", len(ruleset.Pods), "egress", len(ruleset.Egress), "ingress", len(ruleset.Ingress))
	return nil
}

// dropUnused keeps the caches small: of pods only what rules depend on.
func dropUnused(obj any) (any, error) {
	if accessor, err := meta.Accessor(obj); err == nil {
		accessor.SetManagedFields(nil)
		if _, isPolicy := obj.(*networkingv1.NetworkPolicy); !isPolicy {
			accessor.SetAnnotations(nil)
		}
	}
	if pod, ok := obj.(*corev1.Pod); ok {
		strip := func(containers []corev1.Container) []corev1.Container {
			var out []corev1.Container
			for _, c := range containers {
				out = append(out, corev1.Container{Name: c.Name, Ports: c.Ports, RestartPolicy: c.RestartPolicy})
			}
			return out
		}
		pod.Spec = corev1.PodSpec{
			NodeName:       pod.Spec.NodeName,
			HostNetwork:    pod.Spec.HostNetwork,
			Containers:     strip(pod.Spec.Containers),
			InitContainers: strip(pod.Spec.InitContainers),
		}
		pod.Status = corev1.PodStatus{Phase: pod.Status.Phase, PodIP: pod.Status.PodIP, PodIPs: pod.Status.PodIPs}
	}
	return obj, nil
}

func ignoreCancelled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
