package kinds_test

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/syncer/kinds"
	"github.com/sublet-dev/sublet/syncer/translate"
)

func TestNodeFields(t *testing.T) {
	checkFields(t, []fieldList{
		{
			of:         corev1.Node{},
			translated: []string{"ObjectMeta", "Spec", "Status"},
			dropped:    []string{"TypeMeta"},
		},
		{
			of:         corev1.NodeSpec{},
			translated: []string{"Unschedulable", "Taints"},
			dropped:    []string{"PodCIDR", "PodCIDRs", "ProviderID", "ConfigSource", "DoNotUseExternalID"},
		},
		{
			of:         corev1.NodeStatus{},
			copied:     []string{"DaemonEndpoints", "RuntimeHandlers", "Features", "DeclaredFeatures"},
			translated: []string{"Capacity", "Allocatable", "Conditions", "Addresses", "NodeInfo"},
			dropped:    []string{"Phase", "Images", "VolumesInUse", "VolumesAttached", "Config"},
		},
		{
			of:      corev1.NodeSystemInfo{},
			copied:  []string{"KernelVersion", "OSImage", "ContainerRuntimeVersion", "KubeletVersion", "KubeProxyVersion", "OperatingSystem", "Architecture", "Swap"},
			dropped: []string{"MachineID", "SystemUUID", "BootID"},
		},
	})
}

func FuzzNode(f *testing.F) { fuzzToHost(f, kinds.Node(), nil) }

// FuzzNodeMerge: whatever the tenant has made of its node, the second look finds
// nothing left to write.
func FuzzNodeMerge(f *testing.F) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, size := range []int{0, 256, 4096, 16384, 16384, 65536} {
		seed := make([]byte, size)
		for i := range seed {
			seed[i] = byte(random.Uint32())
		}
		f.Add(seed, size%512 == 0)
	}
	f.Fuzz(func(t *testing.T, data []byte, chosen bool) {
		config := testTenant()
		if chosen {
			config.Nodes = &api.NodesSpec{}
		}
		host, own := &corev1.Node{}, &corev1.Node{}
		filler := newFiller(data)
		filler.Fill(host)
		filler.Fill(own)
		host.Name, own.Name = "n", "n"
		for _, node := range []*corev1.Node{host, own} {
			unique(node)
		}
		in := translate.Input[*corev1.Node]{Tenant: translate.NewTenant(config, nil), Host: host, Virtual: own}
		settled(t, &in)
	})
}

// unique drops what the API would refuse: two conditions or taints of one name.
func unique(node *corev1.Node) {
	seen := map[string]bool{}
	again := func(name string) bool {
		was := seen[name]
		seen[name] = true
		return was
	}
	node.Status.Conditions = slices.DeleteFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return again("c" + string(c.Type)) })
	node.Spec.Taints = slices.DeleteFunc(node.Spec.Taints, func(c corev1.Taint) bool { return again("t" + c.Key + string(c.Effect)) })
}

// settled does as the engine: metadata and spec first, then the status, until
// nothing is left. It returns how the virtual node is then.
func settled(t *testing.T, in *translate.Input[*corev1.Node]) *corev1.Node {
	t.Helper()
	for range 5 {
		want, err := kinds.Node().ToVirtual(*in)
		if err != nil {
			t.Fatal(err)
		}
		if equality.Semantic.DeepEqual(in.Virtual, want) {
			return want
		}
		if in.Virtual == nil {
			in.Virtual = want
			continue
		}
		body := want.DeepCopy()
		body.Status = *in.Virtual.Status.DeepCopy()
		if !reflect.DeepEqual(body.ObjectMeta, in.Virtual.ObjectMeta) || !reflect.DeepEqual(body.Spec, in.Virtual.Spec) {
			want = body
		}
		in.Virtual = want
	}
	t.Fatalf("the virtual node does not settle: %+v", in.Virtual)
	return nil
}

// TestNodeTwoMasters follows a node through changes on both sides.
func TestNodeTwoMasters(t *testing.T) {
	const device, fake = corev1.ResourceName("example.com/device"), corev1.ResourceName("example.com/fakecpu")
	for reason, test := range map[string]struct {
		// byTenant changes the virtual node after the first sync, byHost the
		// host's after that.
		byTenant, byHost func(*corev1.Node)
		check            func(*corev1.Node) bool
	}{
		"a label of the tenant stays": {
			byTenant: func(n *corev1.Node) { n.Labels["team"] = "a" },
			byHost:   func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "z" },
			check:    func(n *corev1.Node) bool { return n.Labels["team"] == "a" && n.Labels[corev1.LabelTopologyZone] == "z" },
		},
		"the host wins a label": {
			byTenant: func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "mine" },
			byHost:   func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "z" },
			check:    func(n *corev1.Node) bool { return n.Labels[corev1.LabelTopologyZone] == "z" },
		},
		"a label that the host drops goes": {
			byTenant: func(n *corev1.Node) { n.Labels[corev1.LabelHostname] = "mine" },
			byHost:   func(n *corev1.Node) { delete(n.Labels, corev1.LabelHostname) },
			check:    func(n *corev1.Node) bool { _, ok := n.Labels[corev1.LabelHostname]; return !ok },
		},
		"an annotation of the tenant stays": {
			byTenant: func(n *corev1.Node) { n.Annotations["note"] = "a" },
			check:    func(n *corev1.Node) bool { return n.Annotations["note"] == "a" },
		},
		"a spoilt record is made anew": {
			byTenant: func(n *corev1.Node) { n.Annotations[api.AnnotationHostPart] = "{" },
			byHost:   func(n *corev1.Node) { delete(n.Labels, corev1.LabelHostname) },
			check:    func(n *corev1.Node) bool { _, ok := n.Labels[corev1.LabelHostname]; return !ok },
		},
		"a taint of the tenant stays": {
			byTenant: func(n *corev1.Node) {
				n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "mine", Effect: corev1.TaintEffectNoExecute})
			},
			check: func(n *corev1.Node) bool { return len(n.Spec.Taints) == 1 && n.Spec.Taints[0].Key == "mine" },
		},
		"the taint that the API gives a new node goes": {
			byTenant: func(n *corev1.Node) {
				n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule})
			},
			check: func(n *corev1.Node) bool { return len(n.Spec.Taints) == 0 },
		},
		"a lost node is lost": {
			byHost: func(n *corev1.Node) {
				n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}}
				n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}}
			},
			check: func(n *corev1.Node) bool {
				return n.Status.Conditions[0].Status == corev1.ConditionUnknown && len(n.Spec.Taints) == 1 && n.Spec.Taints[0].Key == corev1.TaintNodeUnreachable
			},
		},
		"cordoned by the tenant": {
			byTenant: func(n *corev1.Node) { n.Spec.Unschedulable = true },
			check:    func(n *corev1.Node) bool { return n.Spec.Unschedulable && len(n.Spec.Taints) == 1 },
		},
		"cordoned by the tenant, then the host, which takes it back": {
			byTenant: func(n *corev1.Node) { n.Spec.Unschedulable = true },
			byHost:   func(n *corev1.Node) { n.Spec.Unschedulable = !n.Spec.Unschedulable },
			check:    func(n *corev1.Node) bool { return n.Spec.Unschedulable },
		},
		"an extended resource of the tenant stays and can be allocated": {
			byTenant: func(n *corev1.Node) { n.Status.Capacity[fake] = resource.MustParse("5") },
			byHost:   func(n *corev1.Node) { n.Status.Capacity[corev1.ResourceCPU] = resource.MustParse("4") },
			check: func(n *corev1.Node) bool {
				capacity, allocatable := n.Status.Capacity[fake], n.Status.Allocatable[fake]
				return capacity.Value() == 5 && allocatable.Value() == 5 && n.Status.Capacity.Cpu().Value() == 4
			},
		},
		"it goes from what can be allocated when the tenant takes it back": {
			byTenant: func(n *corev1.Node) { n.Status.Allocatable[fake] = resource.MustParse("5") },
			check:    func(n *corev1.Node) bool { _, ok := n.Status.Allocatable[fake]; return !ok },
		},
		"the host wins a resource": {
			byTenant: func(n *corev1.Node) { n.Status.Capacity[corev1.ResourceCPU] = resource.MustParse("1000") },
			check:    func(n *corev1.Node) bool { return n.Status.Capacity.Cpu().Value() == 2 },
		},
		"a resource that the host loses goes": {
			byTenant: func(n *corev1.Node) { n.Status.Capacity[device] = resource.MustParse("9") },
			byHost:   func(n *corev1.Node) { delete(n.Status.Capacity, device); delete(n.Status.Allocatable, device) },
			check: func(n *corev1.Node) bool {
				_, capacity := n.Status.Capacity[device]
				_, allocatable := n.Status.Allocatable[device]
				return !capacity && !allocatable
			},
		},
		"a condition of the tenant stays, one that the host drops goes": {
			byTenant: func(n *corev1.Node) {
				n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: "Mine", Status: corev1.ConditionTrue})
			},
			byHost: func(n *corev1.Node) { n.Status.Conditions = nil },
			check: func(n *corev1.Node) bool {
				return len(n.Status.Conditions) == 1 && n.Status.Conditions[0].Type == "Mine"
			},
		},
	} {
		t.Run(reason, func(t *testing.T) {
			list := func() corev1.ResourceList {
				return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), device: resource.MustParse("1")}
			}
			host := &corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{corev1.LabelHostname: "a"}},
				Status: corev1.NodeStatus{
					Capacity: list(), Allocatable: list(),
					Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
				},
			}
			in := translate.Input[*corev1.Node]{Tenant: translate.NewTenant(testTenant(), nil), Host: host}
			virtual := settled(t, &in)
			for _, change := range []func(){
				func() {
					if test.byTenant != nil {
						virtual = virtual.DeepCopy()
						test.byTenant(virtual)
						in.Virtual = virtual
					}
				},
				func() {
					if test.byHost != nil {
						test.byHost(host)
					}
				},
				func() {
					if strings.Contains(reason, "takes it back") && test.byHost != nil {
						test.byHost(host)
					}
				},
			} {
				change()
				virtual = settled(t, &in)
			}
			if !test.check(virtual) {
				t.Errorf("the virtual node is %+v", virtual)
			}
		})
	}
}

// TestNodeShown: which nodes a tenant sees, used or not.
func TestNodeShown(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"pool": "shared", "disk": "ssd"}}}
	for reason, test := range map[string]struct {
		nodes  *api.NodesSpec
		limits map[string]string
		want   bool
	}{
		"none are chosen":                {nil, nil, false},
		"all are":                        {&api.NodesSpec{}, nil, true},
		"by label":                       {&api.NodesSpec{Selector: metav1.LabelSelector{MatchLabels: map[string]string{"pool": "shared"}}}, nil, true},
		"another label":                  {&api.NodesSpec{Selector: metav1.LabelSelector{MatchLabels: map[string]string{"pool": "other"}}}, nil, false},
		"within the limits":              {&api.NodesSpec{}, map[string]string{"disk": "ssd"}, true},
		"outside of the limits":          {&api.NodesSpec{}, map[string]string{"disk": "hdd"}, false},
		"a selector that cannot be read": {&api.NodesSpec{Selector: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "?"}}}}, nil, false},
	} {
		t.Run(reason, func(t *testing.T) {
			config := testTenant()
			config.Nodes, config.NodeSelector = test.nodes, test.limits
			if got := kinds.Node().Shown(translate.NewTenant(config, nil), node); got != test.want {
				t.Errorf("shown: %v, want %v", got, test.want)
			}
		})
	}
}
