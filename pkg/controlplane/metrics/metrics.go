// Package metrics serves metrics.k8s.io in a tenant: what the host measures of
// the tenant's own pods, under their names in the tenant.
//
//	kubectl top, HPA ─► virtual API server ─► Server ─► host's metrics.k8s.io
//	                                            │        (the tenant's namespace)
//	                                            ▼
//	                                     virtual pods, nodes
//
// What a node shows is the tenant's share of it: the sum of its own pods there.
// The use of others, and of the machine itself, is not the tenant's to see.
package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// hostPath is where the host serves its metrics.
const hostPath = "/apis/metrics.k8s.io/v1beta1"

// Options of a Server. All are required.
type Options struct {
	// HostNamespace is where the tenant's host pods are.
	HostNamespace string
	// Host reaches the host's API, with the right to get and list pods of
	// metrics.k8s.io in HostNamespace.
	Host *rest.Config
	// HostPod tells the name of the host pod of a virtual one; the error is
	// NotFound for one that is not on the host.
	HostPod func(ctx context.Context, virtualNamespace, name string) (hostName string, err error)
	// Virtual reaches the tenant's API; an error says that there is none yet.
	Virtual func() (*rest.Config, error)
}

// Server serves the metrics of one tenant.
type Server struct {
	options Options
	host    rest.Interface

	mu      sync.Mutex
	virtual kubernetes.Interface
}

// New returns a Server; it talks to nobody yet.
func New(o Options) (*Server, error) {
	for name, missing := range map[string]bool{
		"HostNamespace": o.HostNamespace == "",
		"Host":          o.Host == nil,
		"HostPod":       o.HostPod == nil,
		"Virtual":       o.Virtual == nil,
	} {
		if missing {
			return nil, fmt.Errorf("metrics: option %s is missing", name)
		}
	}
	config := rest.CopyConfig(o.Host)
	config.QPS = -1
	host, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("metrics: host client: %w", err)
	}
	return &Server{options: o, host: host.Discovery().RESTClient()}, nil
}

// Available tells whether the host has metrics. Whether they can be had at the
// moment does not matter.
func (s *Server) Available(ctx context.Context) (bool, error) {
	err := s.host.Get().AbsPath(hostPath).Do(ctx).Error()
	switch {
	case err == nil:
		return true, nil
	case apierrors.IsNotFound(err):
		return false, nil
	}
	return false, fmt.Errorf("ask the host for %s: %w", hostPath, err)
}

// Readers is the role that lets those who may see pods see what they use; the
// metrics server of a cluster brings the same.
func Readers() *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{
			Name: "system:aggregated-metrics-reader",
			Labels: map[string]string{
				"rbac.authorization.k8s.io/aggregate-to-view":  "true",
				"rbac.authorization.k8s.io/aggregate-to-edit":  "true",
				"rbac.authorization.k8s.io/aggregate-to-admin": "true",
			},
		},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{metricsv1beta1.GroupName}, Resources: []string{"pods", "nodes"}, Verbs: []string{"get", "list", "watch"},
		}},
	}
}

// GroupVersion is what is served.
func GroupVersion() schema.GroupVersion { return metricsv1beta1.SchemeGroupVersion }

// Resources are what discovery shows.
func Resources() []metav1.APIResource {
	return []metav1.APIResource{
		{Name: "nodes", Kind: "NodeMetrics", Verbs: metav1.Verbs{"get", "list"}},
		{Name: "pods", Kind: "PodMetrics", Namespaced: true, Verbs: metav1.Verbs{"get", "list"}},
	}
}

func (s *Server) virtualClient() (kubernetes.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.virtual != nil {
		return s.virtual, nil
	}
	config, err := s.options.Virtual()
	if err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	s.virtual = client
	return client, nil
}

// unavailable is what a metrics server says that has nothing yet; clients try
// again.
func unavailable(err error) error {
	return apierrors.NewServiceUnavailable("the host cluster has no metrics at the moment: " + reason(err))
}

// reason leaves out what the host's API says in its own names.
func reason(err error) string {
	switch {
	case apierrors.IsNotFound(err):
		return "it does not serve metrics.k8s.io"
	case apierrors.IsForbidden(err):
		return "it does not let this cluster read them; ask whoever runs the host for the rights of this release"
	}
	return "try again"
}

// hostMetrics are those of all pods in the host namespace, by host name.
func (s *Server) hostMetrics(ctx context.Context) (map[string]*metricsv1beta1.PodMetrics, error) {
	data, err := s.host.Get().AbsPath(hostPath, "namespaces", s.options.HostNamespace, "pods").DoRaw(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	list := &metricsv1beta1.PodMetricsList{}
	if err := json.Unmarshal(data, list); err != nil {
		return nil, unavailable(err)
	}
	byName := make(map[string]*metricsv1beta1.PodMetrics, len(list.Items))
	for i := range list.Items {
		if list.Items[i].Namespace == s.options.HostNamespace {
			byName[list.Items[i].Name] = &list.Items[i]
		}
	}
	return byName, nil
}

// pods returns the metrics of virtual pods, those that the host has any of, in
// the order of the API.
func (s *Server) pods(ctx context.Context, namespace string, o metav1.ListOptions) ([]podMetrics, error) {
	client, err := s.virtualClient()
	if err != nil {
		return nil, apierrors.NewServiceUnavailable(err.Error())
	}
	o.ResourceVersion = "0" // Metrics are older than any cache.
	list, err := client.CoreV1().Pods(namespace).List(ctx, o)
	if err != nil {
		return nil, err
	}
	if len(list.Items) == 0 {
		return nil, nil
	}
	measured, err := s.hostMetrics(ctx)
	if err != nil {
		return nil, err
	}
	var all []podMetrics
	for i := range list.Items {
		if found := s.find(ctx, &list.Items[i], measured); found != nil {
			all = append(all, podMetrics{metrics: *found, node: list.Items[i].Spec.NodeName})
		}
	}
	return all, nil
}

// OnNode returns the metrics of the virtual pods on a node, those that the host has
// any of. The error is ServiceUnavailable as long as it has none.
func (s *Server) OnNode(ctx context.Context, node string) ([]metricsv1beta1.PodMetrics, error) {
	pods, err := s.pods(ctx, metav1.NamespaceAll, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String()})
	if err != nil {
		return nil, err
	}
	all := make([]metricsv1beta1.PodMetrics, 0, len(pods))
	for i := range pods {
		all = append(all, pods[i].metrics)
	}
	return all, nil
}

// podMetrics of a virtual pod on a node.
type podMetrics struct {
	metrics metricsv1beta1.PodMetrics
	node    string
}

// find returns the metrics of a virtual pod in its own names, or nil.
func (s *Server) find(ctx context.Context, pod *corev1.Pod, measured map[string]*metricsv1beta1.PodMetrics) *metricsv1beta1.PodMetrics {
	if pod.Spec.NodeName == "" {
		return nil
	}
	name, err := s.options.HostPod(ctx, pod.Namespace, pod.Name)
	if err != nil || measured[name] == nil {
		return nil
	}
	host := measured[name]
	out := &metricsv1beta1.PodMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, Labels: pod.Labels, CreationTimestamp: host.CreationTimestamp},
		Timestamp:  host.Timestamp,
		Window:     host.Window,
	}
	for _, container := range host.Containers {
		if hasContainer(pod, container.Name) { // The host may have added some.
			out.Containers = append(out.Containers, container)
		}
	}
	return out
}

func hasContainer(pod *corev1.Pod, name string) bool {
	named := func(c corev1.Container) bool { return c.Name == name }
	return slices.ContainsFunc(pod.Spec.Containers, named) || slices.ContainsFunc(pod.Spec.InitContainers, named) ||
		slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == name })
}

// nodes returns the tenant's share of each of its nodes.
func (s *Server) nodes(ctx context.Context, o metav1.ListOptions) ([]metricsv1beta1.NodeMetrics, error) {
	client, err := s.virtualClient()
	if err != nil {
		return nil, apierrors.NewServiceUnavailable(err.Error())
	}
	o.ResourceVersion = "0"
	list, err := client.CoreV1().Nodes().List(ctx, o)
	if err != nil {
		return nil, err
	}
	pods, err := s.pods(ctx, metav1.NamespaceAll, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var all []metricsv1beta1.NodeMetrics
	for i := range list.Items {
		all = append(all, share(&list.Items[i], pods))
	}
	return all, nil
}

// share sums up what pods use of a node. It is as old as the oldest of them.
func share(node *corev1.Node, pods []podMetrics) metricsv1beta1.NodeMetrics {
	out := metricsv1beta1.NodeMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, Labels: node.Labels, CreationTimestamp: metav1.Now()},
		Timestamp:  metav1.Now(),
		Window:     metav1.Duration{Duration: time.Minute},
		Usage:      corev1.ResourceList{corev1.ResourceCPU: {}, corev1.ResourceMemory: {}},
	}
	first := true
	for _, pod := range pods {
		if pod.node != node.Name {
			continue
		}
		if first || pod.metrics.Timestamp.Before(&out.Timestamp) {
			out.Timestamp, out.Window = pod.metrics.Timestamp, pod.metrics.Window
			first = false
		}
		for _, container := range pod.metrics.Containers {
			out.Usage = quota.Add(out.Usage, container.Usage)
		}
	}
	return out
}

// listOptions are those that metrics have: selectors.
func listOptions(r *http.Request, name string) (metav1.ListOptions, error) {
	query := r.URL.Query()
	o := metav1.ListOptions{LabelSelector: query.Get("labelSelector"), FieldSelector: query.Get("fieldSelector")}
	if _, err := labels.Parse(o.LabelSelector); err != nil {
		return o, apierrors.NewBadRequest("labelSelector: " + err.Error())
	}
	selector, err := fields.ParseSelector(o.FieldSelector)
	if err != nil {
		return o, apierrors.NewBadRequest("fieldSelector: " + err.Error())
	}
	for _, requirement := range selector.Requirements() {
		if !strings.HasPrefix(requirement.Field, "metadata.") {
			return o, apierrors.NewBadRequest(fmt.Sprintf("fieldSelector: %q is not a field of metrics: use metadata.name or metadata.namespace", requirement.Field))
		}
	}
	if name != "" {
		o = metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()}
	}
	return o, nil
}
