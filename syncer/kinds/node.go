package kinds

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/klog/v2"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/translate"
)

// Node is shown to the tenant as far as its pods run on it or its nodes are
// chosen so: with its true size, versions and health, and without what it says
// about other tenants.
//
// A node in the tenant has two masters. What the host says follows the host;
// what the tenant adds stays: labels, annotations, taints, extended resources,
// conditions, and that it is cordoned. Where both say something the host wins,
// since pods really run there: a zone of the tenant's invention would not hold
// for its volumes. An annotation remembers what came from the host, so that
// what the host no longer says goes, and the rest does not.
func Node() translate.Kind[*corev1.Node] {
	return translate.Kind[*corev1.Node]{
		GroupVersionKind:  corev1.SchemeGroupVersion.WithKind("Node"),
		Resource:          "nodes",
		New:               func() *corev1.Node { return &corev1.Node{} },
		NewList:           func() translate.ObjectList { return &corev1.NodeList{} },
		ClusterRules:      []rbacv1.PolicyRule{rule("", readOnly, "nodes")},
		WhenReferenced:    true,
		Shown:             nodeShown,
		StatusSubresource: true,
		ToVirtual:         nodeToVirtual,
		PruneHost:         nodePrune,
	}
}

// nodeShown tells whether the tenant's nodes are chosen so that this is one.
func nodeShown(tenant translate.Tenant, host *corev1.Node) bool {
	if tenant.Nodes == nil {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(&tenant.Nodes.Selector)
	if err != nil {
		return false // The manager refuses it.
	}
	have := labels.Set(host.Labels)
	return selector.Matches(have) && labels.SelectorFromSet(tenant.NodeSelector).Matches(have)
}

// nodeLabel tells which labels of a node the tenant sees: Kubernetes' own, and
// those by which storage drivers say where a volume can be reached
// (topology.DRIVER/...). What the host's people keep in others is theirs.
func nodeLabel(key string) bool {
	domain, _, named := strings.Cut(key, "/")
	switch domain {
	case "kubernetes.io", "beta.kubernetes.io", "node.kubernetes.io":
		return true
	}
	return named && strings.HasPrefix(domain, "topology.")
}

// hostPart is what of a virtual node came from the host. Lists are sorted, so
// that the same part is written the same way.
type hostPart struct {
	Labels     []string `json:"labels,omitempty"`
	Resources  []string `json:"resources,omitempty"`
	Conditions []string `json:"conditions,omitempty"`
	// Taints are KEY:EFFECT.
	Taints []string `json:"taints,omitempty"`
	// Cordoned tells that the node is unschedulable on the host's account only.
	Cordoned bool `json:"cordoned,omitempty"`
}

// hostPartOf reads what was written before. What cannot be read was spoilt by
// the tenant, and all is taken for its own.
func hostPartOf(virtual *corev1.Node) hostPart {
	var part hostPart
	if virtual == nil || json.Unmarshal([]byte(virtual.Annotations[api.AnnotationHostPart]), &part) != nil {
		return hostPart{}
	}
	return part
}

func (p hostPart) String() string {
	for _, list := range []*[]string{&p.Labels, &p.Resources, &p.Conditions, &p.Taints} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	out, err := json.Marshal(p)
	if err != nil {
		return "" // Strings and a bool can always be written.
	}
	return string(out)
}

func nodeToVirtual(in translate.Input[*corev1.Node]) (*corev1.Node, error) {
	host := in.Host.DeepCopy()
	host.Annotations = nil // a machine's own affairs
	virtual := &corev1.Node{
		ObjectMeta: translate.VirtualMeta(host, nodeLabel),
		Spec:       corev1.NodeSpec{Unschedulable: host.Spec.Unschedulable},
		Status: corev1.NodeStatus{
			Capacity:         host.Status.Capacity,
			Allocatable:      host.Status.Allocatable,
			Conditions:       host.Status.Conditions,
			DaemonEndpoints:  host.Status.DaemonEndpoints,
			RuntimeHandlers:  host.Status.RuntimeHandlers,
			Features:         host.Status.Features,
			DeclaredFeatures: host.Status.DeclaredFeatures,
			NodeInfo: corev1.NodeSystemInfo{
				// The identity of the machine stays behind.
				KernelVersion:           host.Status.NodeInfo.KernelVersion,
				OSImage:                 host.Status.NodeInfo.OSImage,
				ContainerRuntimeVersion: host.Status.NodeInfo.ContainerRuntimeVersion,
				KubeletVersion:          host.Status.NodeInfo.KubeletVersion,
				KubeProxyVersion:        host.Status.NodeInfo.KubeProxyVersion,
				OperatingSystem:         host.Status.NodeInfo.OperatingSystem,
				Architecture:            host.Status.NodeInfo.Architecture,
				Swap:                    host.Status.NodeInfo.Swap,
			},
		},
	}
	for _, address := range host.Status.Addresses {
		if address.Type == corev1.NodeHostName || address.Type == corev1.NodeInternalIP {
			virtual.Status.Addresses = append(virtual.Status.Addresses, address)
		}
	}

	own := in.Virtual
	if own == nil {
		own = &corev1.Node{}
	}
	m := nodeMerge{tenant: in.Tenant, host: host, own: own, before: hostPartOf(own), virtual: virtual}
	m.metadata()
	m.cordon()
	m.taints()
	m.resources()
	m.conditions()
	virtual.Annotations[api.AnnotationHostPart] = m.now.String()
	return virtual, nil
}

// nodeMerge adds to virtual, which holds the host's part, what the tenant has
// put on its node.
type nodeMerge struct {
	tenant translate.Tenant
	host   *corev1.Node
	// own is the node as the tenant has it, before what of it came from the
	// host, now what does.
	own         *corev1.Node
	before, now hostPart
	virtual     *corev1.Node
}

func (m *nodeMerge) metadata() {
	m.now.Labels = slices.Collect(maps.Keys(m.virtual.Labels))
	for key, value := range m.own.Labels {
		if _, taken := m.virtual.Labels[key]; !taken && !slices.Contains(m.before.Labels, key) {
			metav1.SetMetaDataLabel(&m.virtual.ObjectMeta, key, value)
		}
	}
	for key, value := range m.own.Annotations {
		if key != api.AnnotationFromHost && key != api.AnnotationHostPart {
			m.virtual.Annotations[key] = value
		}
	}
}

// cordon: a node is unschedulable as long as one of the two wants it so.
func (m *nodeMerge) cordon() {
	byTenant := m.own.Spec.Unschedulable && !m.before.Cordoned
	m.now.Cordoned = m.host.Spec.Unschedulable && !byTenant
	m.virtual.Spec.Unschedulable = m.host.Spec.Unschedulable || byTenant
}

// nodeTaints are those that Kubernetes itself keeps on nodes, by their
// condition. The host's node controller does it for the tenant, too; the
// tenant's API adds the first of them to every new node.
func nodeTaints() []string {
	return []string{
		corev1.TaintNodeNotReady,
		corev1.TaintNodeUnreachable,
		corev1.TaintNodeMemoryPressure,
		corev1.TaintNodeDiskPressure,
		corev1.TaintNodePIDPressure,
		corev1.TaintNodeNetworkUnavailable,
		corev1.TaintNodeUnschedulable,
	}
}

func taintName(taint corev1.Taint) string { return taint.Key + ":" + string(taint.Effect) }

func (m *nodeMerge) taints() {
	m.virtual.Spec.Taints = m.hostTaints()
	for _, taint := range m.virtual.Spec.Taints {
		m.now.Taints = append(m.now.Taints, taintName(taint))
	}
	for _, taint := range m.own.Spec.Taints {
		name := taintName(taint)
		if slices.Contains(nodeTaints(), taint.Key) || slices.Contains(m.before.Taints, name) || slices.Contains(m.now.Taints, name) {
			continue
		}
		m.virtual.Spec.Taints = append(m.virtual.Spec.Taints, *taint.DeepCopy())
	}
}

// hostTaints are those that the tenant sees: Kubernetes' own, and those that its
// pods may tolerate. Of others it sees no more than that there are some, and
// that only where nodes are shown that its pods may never run on: its scheduler
// and its DaemonSets must know.
func (m *nodeMerge) hostTaints() []corev1.Taint {
	var out []corev1.Taint
	repels := false
	for _, taint := range m.host.Spec.Taints {
		switch {
		case taint.Key == corev1.TaintNodeUnschedulable:
		case slices.Contains(nodeTaints(), taint.Key), m.tolerated(taint):
			out = append(out, taint)
		case taint.Effect != corev1.TaintEffectPreferNoSchedule:
			repels = true
		}
	}
	if m.virtual.Spec.Unschedulable {
		out = append(out, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	if repels && m.tenant.Nodes != nil {
		out = append(out, corev1.Taint{Key: api.TaintHost, Effect: corev1.TaintEffectNoSchedule})
	}
	return out
}

func (m *nodeMerge) tolerated(taint corev1.Taint) bool {
	return slices.ContainsFunc(m.tenant.Tolerations, func(allowed corev1.Toleration) bool {
		return allowed.ToleratesTaint(klog.Logger{}, &taint, true)
	})
}

// resources: what the tenant adds to the capacity can be allocated, as with a
// kubelet, which takes over extended resources that were written through the
// API.
func (m *nodeMerge) resources() {
	var own []corev1.ResourceName
	for name := range m.own.Status.Capacity {
		if _, taken := m.host.Status.Capacity[name]; !taken && !slices.Contains(m.before.Resources, string(name)) {
			own = append(own, name)
		}
	}
	for name := range m.virtual.Status.Capacity {
		m.now.Resources = append(m.now.Resources, string(name))
	}
	// The status is written after the metadata: what the host had stays on
	// record until it is out of the status.
	for _, name := range m.before.Resources {
		if _, ok := m.own.Status.Capacity[corev1.ResourceName(name)]; ok {
			m.now.Resources = append(m.now.Resources, name)
		}
	}
	if len(own) == 0 {
		return
	}
	for _, list := range []*corev1.ResourceList{&m.virtual.Status.Capacity, &m.virtual.Status.Allocatable} {
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		for _, name := range own {
			(*list)[name] = m.own.Status.Capacity[name].DeepCopy()
		}
	}
}

func (m *nodeMerge) conditions() {
	for _, condition := range m.virtual.Status.Conditions {
		m.now.Conditions = append(m.now.Conditions, string(condition.Type))
	}
	for _, condition := range m.own.Status.Conditions {
		name := string(condition.Type)
		switch {
		case slices.Contains(m.before.Conditions, name):
			m.now.Conditions = append(m.now.Conditions, name) // Until it is out of the status.
		case !slices.Contains(m.now.Conditions, name):
			m.virtual.Status.Conditions = append(m.virtual.Status.Conditions, condition)
		}
	}
}

// nodePrune drops the bulk of a node before it is kept in memory.
func nodePrune(host *corev1.Node) {
	host.Annotations = nil
	host.Status.Images = nil
	host.Status.VolumesInUse = nil
	host.Status.VolumesAttached = nil
	host.Status.Config = nil
}
