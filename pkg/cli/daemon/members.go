package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// membersRetry is the time between attempts to bind members.
const membersRetry = time.Second

// followMembers takes over members that the manager writes into the tenant's
// ConfigMap on the host, as soon as it does: the file that a kubelet makes of it
// is a minute late. seen gets each configuration, for what else need not wait for
// a new pod.
//
// While the host does not answer, members stay as they are.
func followMembers(ctx context.Context, host kubernetes.Interface, now api.ControlPlaneConfig, seen func(api.ControlPlaneConfig), set func(context.Context, []api.Member) error) error {
	// The latest members; whoever is late skips those in between.
	latest := make(chan []api.Member, 1)
	read := func(object any) {
		configMap, ok := object.(*corev1.ConfigMap)
		if !ok {
			return
		}
		config, err := parseConfig([]byte(configMap.Data[api.ConfigKey]), "ConfigMap "+configMap.Name)
		if err != nil {
			klog.FromContext(ctx).Error(err, "Cannot follow the members")
			return
		}
		seen(config)
		select {
		case <-latest:
		default:
		}
		latest <- config.Members
	}
	configMaps := host.CoreV1().ConfigMaps(now.HostNamespace)
	// The one, not those that were synced.
	one := fields.OneTermEqualSelector("metadata.name", api.ControlPlaneName).String()
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.FieldSelector = one
				return configMaps.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.FieldSelector = one
				return configMaps.Watch(ctx, o)
			},
		}, host),
		ObjectType: &corev1.ConfigMap{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    read,
			UpdateFunc: func(_, object any) { read(object) },
		},
	})
	go informer.RunWithContext(ctx)

	bound := now.Members
	var due []api.Member
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case due = <-latest:
		case <-retry:
		}
		retry = nil
		if slices.Equal(due, bound) {
			continue
		}
		if err := set(ctx, due); err != nil {
			klog.FromContext(ctx).Error(err, "Cannot bind the members, will try again")
			retry = time.After(membersRetry)
			// Some of them may be bound already.
			bound = nil
			continue
		}
		klog.FromContext(ctx).Info("Bound the members", "members", len(due))
		bound = due
	}
}

// hostClient asks the host for little; it shares nothing with the syncer.
func (t *tenant) hostClient() (kubernetes.Interface, error) {
	client, err := kubernetes.NewForConfig(t.options.host)
	if err != nil {
		return nil, fmt.Errorf("reaching the host: %w", err)
	}
	return client, nil
}
