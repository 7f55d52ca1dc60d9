package controlplane

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	kubescheduler "k8s.io/kubernetes/pkg/scheduler"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	schedulerdefaults "k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	schedulerruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
)

// scheduler is kube-scheduler with the API server's own identity and informers,
// without a lease or a port. With ProfileHost it is as it comes. With
// ProfileTenant it leaves to the host what only the host can do: it binds no
// volumes, and knows no images and devices.
type scheduler struct {
	scheduler   *kubescheduler.Scheduler
	broadcaster events.EventBroadcasterAdapter
	factory     informers.SharedInformerFactory
	// release lets events through to it.
	release chan struct{}
}

// newScheduler builds a scheduler; the API server answers already.
func newScheduler(ctx context.Context, o Options, config *rest.Config, factory informers.SharedInformerFactory) (*scheduler, error) {
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(rest.CopyConfig(config), "scheduler"))
	if err != nil {
		return nil, fmt.Errorf("building the scheduler: %w", err)
	}
	settings, err := schedulerSettings(o.Profile)
	if err != nil {
		return nil, fmt.Errorf("configuring the scheduler: %w", err)
	}
	s := &scheduler{
		broadcaster: events.NewEventBroadcasterAdapterWithContext(ctx, client),
		release:     make(chan struct{}),
	}
	s.factory = heldInformers{SharedInformerFactory: factory, release: s.release, stop: ctx.Done(), keep: map[reflect.Type]func(any) bool{
		reflect.TypeFor[*corev1.Pod](): podLasts,
	}}
	s.scheduler, err = kubescheduler.New(ctx, client, s.factory, nil,
		func(name string) events.EventRecorderLogger { return s.broadcaster.NewRecorder(name) },
		kubescheduler.WithComponentConfigVersion(settings.APIVersion),
		kubescheduler.WithKubeConfig(config),
		kubescheduler.WithProfiles(settings.Profiles...),
		kubescheduler.WithParallelism(settings.Parallelism),
		kubescheduler.WithFrameworkOutOfTreeRegistry(schedulerruntime.Registry{volumeNodesName: newVolumeNodes}),
	)
	if err != nil {
		s.broadcaster.Shutdown()
		return nil, fmt.Errorf("building the scheduler: %w", err)
	}
	return s, nil
}

// run blocks until ctx ends.
func (s *scheduler) run(ctx context.Context) error {
	defer s.broadcaster.Shutdown()
	s.broadcaster.StartRecordingToSink(ctx.Done())
	s.factory.Start(ctx.Done())
	close(s.release)
	s.factory.WaitForCacheSync(ctx.Done())
	if err := s.scheduler.WaitForHandlersSync(ctx); err != nil {
		return nil // It was told to stop before it began.
	}
	klog.FromContext(ctx).V(1).Info("Scheduling")
	s.scheduler.Run(ctx)
	return nil
}

// schedulerSettings are the defaults; in a tenant without what the host does.
func schedulerSettings(profile Profile) (*schedulerconfig.KubeSchedulerConfiguration, error) {
	settings, err := schedulerdefaults.Default()
	if err != nil || profile == ProfileHost {
		return settings, err
	}
	// Pods fill a node of a small tenant in no time at all; less is cheaper.
	settings.Parallelism = 4
	for i := range settings.Profiles {
		plugins := &settings.Profiles[i].Plugins.MultiPoint
		plugins.Enabled = slices.DeleteFunc(plugins.Enabled, func(p schedulerconfig.Plugin) bool {
			return slices.Contains([]string{
				names.VolumeBinding, names.VolumeZone, names.NodeVolumeLimits,
				names.ImageLocality, names.DynamicResources,
			}, p.Name)
		})
		plugins.Enabled = append(plugins.Enabled, schedulerconfig.Plugin{Name: volumeNodesName})
	}
	return settings, nil
}

// podLasts tells whether a pod has not ended, as far as is known: a scheduler
// takes every pod that it sees for one that needs its node.
func podLasts(object any) bool {
	pod, ok := lastKnown(object).(*corev1.Pod)
	return !ok || pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// lastKnown is the object of an event, also of one that came late.
func lastKnown(object any) any {
	if last, unknown := object.(cache.DeletedFinalStateUnknown); unknown {
		return last.Obj
	}
	return object
}
