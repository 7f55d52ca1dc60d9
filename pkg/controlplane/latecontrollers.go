package controlplane

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	controllerapp "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"
)

// lateRetry is how soon a controller that could not be built is tried again.
const lateRetry = 5 * time.Second

// firstObjects are the objects of one kind that controllers wait for. A
// controller that is named under no kind starts at once.
type firstObjects struct {
	informer cache.SharedIndexInformer
	// wakes tells by the name of a controller which objects it has to do with.
	wakes map[string]func(object any) bool
}

func anyObject(any) bool { return true }

// lateControllers tells what gives each controller something to do. Before that
// it would be workers, queues and caches of things that are not there: a tenant
// seldom uses half of the controllers.
//
// What a controller cleans up after its own objects are gone wakes it, too.
func lateControllers(factory informers.SharedInformerFactory) []firstObjects {
	wakes := func(controllers ...string) map[string]func(any) bool {
		all := map[string]func(any) bool{}
		for _, name := range controllers {
			all[name] = anyObject
		}
		return all
	}
	pods := wakes(names.PodGarbageCollectorController, names.TaintEvictionController)
	pods[names.EphemeralVolumeController] = podOf(hasEphemeralVolume)
	pods[names.JobController] = podOf(isTrackedByJob)
	pods[names.DisruptionController] = podOf(isDisruptionTarget)
	return []firstObjects{
		{factory.Core().V1().Pods().Informer(), pods},
		{factory.Core().V1().ReplicationControllers().Informer(), wakes(names.ReplicationControllerController)},
		{factory.Core().V1().ResourceQuotas().Informer(), wakes(names.ResourceQuotaController)},
		{factory.Core().V1().PersistentVolumeClaims().Informer(), wakes(names.PersistentVolumeClaimProtectionController, names.PersistentVolumeBinderController)},
		{factory.Core().V1().PersistentVolumes().Informer(), wakes(names.PersistentVolumeProtectionController, names.PersistentVolumeBinderController)},
		{factory.Apps().V1().Deployments().Informer(), wakes(names.DeploymentController)},
		{factory.Apps().V1().ReplicaSets().Informer(), wakes(names.ReplicaSetController)},
		{factory.Apps().V1().StatefulSets().Informer(), wakes(names.StatefulSetController)},
		{factory.Apps().V1().DaemonSets().Informer(), wakes(names.DaemonSetController)},
		{factory.Batch().V1().Jobs().Informer(), wakes(names.JobController, names.TTLAfterFinishedController)},
		{factory.Batch().V1().CronJobs().Informer(), wakes(names.CronJobController)},
		{factory.Autoscaling().V2().HorizontalPodAutoscalers().Informer(), wakes(names.HorizontalPodAutoscalerController)},
		{factory.Policy().V1().PodDisruptionBudgets().Informer(), wakes(names.DisruptionController)},
		{factory.Certificates().V1().CertificateSigningRequests().Informer(), wakes(
			names.CertificateSigningRequestSigningController, names.CertificateSigningRequestApprovingController, names.CertificateSigningRequestCleanerController)},
		{factory.Admissionregistration().V1().ValidatingAdmissionPolicies().Informer(), wakes(names.ValidatingAdmissionPolicyStatusController)},
	}
}

func podOf(is func(*corev1.Pod) bool) func(any) bool {
	return func(object any) bool {
		pod, ok := object.(*corev1.Pod)
		return ok && is(pod)
	}
}

func hasEphemeralVolume(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(volume corev1.Volume) bool { return volume.Ephemeral != nil })
}

// isTrackedByJob: the Job controller lets go of pods whose Job is gone.
func isTrackedByJob(pod *corev1.Pod) bool {
	return slices.Contains(pod.Finalizers, batchv1.JobTrackingFinalizer)
}

// isDisruptionTarget: the disruption controller takes the condition back where
// nothing came of it.
func isDisruptionTarget(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.DisruptionTarget })
}

// lateController builds a controller when there is something for it to do, and
// then runs it until the end.
//
//	waiting ── first object ──► built ──► running
type lateController struct {
	name  string
	build func(ctx context.Context) ([]controllerapp.Controller, error)

	once  sync.Once
	first chan struct{}
}

var _ controllerapp.Controller = (*lateController)(nil)

func newLateController(name string, build func(ctx context.Context) ([]controllerapp.Controller, error)) *lateController {
	return &lateController{name: name, build: build, first: make(chan struct{})}
}

// Name of the controller.
func (l *lateController) Name() string { return l.name }

func (l *lateController) wake() { l.once.Do(func() { close(l.first) }) }

func (l *lateController) awake() bool {
	select {
	case <-l.first:
		return true
	default:
		return false
	}
}

// Run blocks until ctx ends.
func (l *lateController) Run(ctx context.Context) {
	select {
	case <-l.first:
	case <-ctx.Done():
		return
	}
	var built []controllerapp.Controller
	err := wait.PollUntilContextCancel(ctx, lateRetry, true, func(ctx context.Context) (bool, error) {
		var err error
		if built, err = l.build(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "A controller cannot be built, trying again", "controller", l.name)
		}
		return err == nil, nil
	})
	if err != nil {
		return // the control plane stops
	}
	var running sync.WaitGroup
	for _, controller := range built {
		running.Go(func() { controller.Run(ctx) })
	}
	running.Wait()
}

// wakeLate lets first objects wake controllers, and ceases to look at a kind that
// has no controller to wake any more.
func wakeLate(kinds []firstObjects, late map[string]*lateController) error {
	for _, kind := range kinds {
		w := &waker{informer: kind.informer, left: map[*lateController]func(any) bool{}}
		for name, is := range kind.wakes {
			controller, ok := late[name]
			if !ok {
				return fmt.Errorf("controller %q waits for an object, and is not there", name)
			}
			w.left[controller] = is
		}
		if err := w.register(); err != nil {
			return fmt.Errorf("waiting for the first objects of a kind: %w", err)
		}
	}
	return nil
}

// waker is the handler of one kind.
type waker struct {
	informer cache.SharedIndexInformer

	mu           sync.Mutex
	left         map[*lateController]func(any) bool
	registration cache.ResourceEventHandlerRegistration
}

func (w *waker) register() error {
	// Held while the registration is not known, which the first event may need.
	w.mu.Lock()
	defer w.mu.Unlock()
	var err error
	w.registration, err = w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    w.see,
		UpdateFunc: func(_, object any) { w.see(object) },
	})
	return err
}

func (w *waker) see(object any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.left) == 0 {
		return
	}
	for controller, is := range w.left {
		if controller.awake() || is(object) {
			controller.wake()
			delete(w.left, controller)
		}
	}
	if len(w.left) == 0 {
		// Not from within the handler, which would wait for itself.
		go func() { _ = w.informer.RemoveEventHandler(w.registration) }()
	}
}
