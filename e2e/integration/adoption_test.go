package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// TestAdoption gives namespaces that exist to tenants:
//
//	team     a Folder; lead is admin of it
//	owner    may update the namespaces that are his, and nothing else
func TestAdoption(t *testing.T) {
	ctrl.SetLogger(logr.Discard())
	h := startManagedHost(t)
	h.create(with(folder("team"), user("lead", api.RoleAdmin)))
	h.waitForPhase("team", api.PhaseReady)
	h.create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "owner"}, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"get", "update", "patch", "delete"},
		ResourceNames: []string{"given", "unfit", "late", "own", "vc", "withdrawn", "kube-given", "default"},
	}}})
	h.create(&rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "owner"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "owner"},
		Subjects:   []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "owner"}},
	})
	h.run("Given", func(*testing.T) { testGiven(h) })
	h.run("Unfit", func(*testing.T) { testUnfit(h) })
	h.run("Attacks", func(*testing.T) { testAdoptionAttacks(h) })
	h.run("OnlyNamespaceTenants", func(*testing.T) { testAdoptedByOthers(h) })
}

// exists makes a namespace without any tenant.
func (h *managedHost) exists(name string, labels map[string]string) {
	h.t.Helper()
	h.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
}

func (h *managedHost) namespace(name string) *corev1.Namespace {
	h.t.Helper()
	namespace := &corev1.Namespace{}
	if err := h.client.Get(h.t.Context(), key(name), namespace); err != nil {
		h.t.Fatal(err)
	}
	return namespace
}

// give writes the offer in somebody's name.
func (h *managedHost) give(as client.Client, namespace, to string) error {
	before := h.namespace(namespace)
	after := before.DeepCopy()
	if after.Annotations == nil {
		after.Annotations = map[string]string{}
	}
	after.Annotations[api.AnnotationGiveTo] = to
	return as.Patch(h.t.Context(), after, client.MergeFrom(before))
}

// oursOn are the labels and annotations of Sublet on a namespace.
func oursOn(namespace *corev1.Namespace) []string {
	var keys []string
	for _, all := range []map[string]string{namespace.Labels, namespace.Annotations} {
		for key := range all {
			if strings.HasPrefix(key, api.Prefix) {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys)
	return keys
}

func wide() networkingv1.NetworkPolicySpec {
	return networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress:      []networkingv1.NetworkPolicyEgressRule{{}},
	}
}

func testGiven(h *managedHost) {
	t := h.t
	owner, lead := h.as("owner"), h.as("lead")
	h.exists("given", map[string]string{"pod-security.kubernetes.io/enforce": "privileged", "example.com/team": "a"})
	h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept", Namespace: "given"}})
	before := h.namespace("given")

	// The tenant alone is not enough.
	tenant := with(below("team", namespaceTenant("shop")), user("dev", api.RoleEdit))
	tenant.Spec.Namespace = "given"
	tenant.Spec.Limits = &api.Limits{Quota: corev1.ResourceList{"configmaps": resource.MustParse("5")}}
	if err := lead.Create(t.Context(), tenant); err != nil {
		t.Fatal(err)
	}
	c := h.waitFor("shop", api.ConditionNamespaceReady, "NamespaceTaken")
	if !strings.Contains(c.Message, api.AnnotationGiveTo+"=shop") {
		t.Errorf("the message does not say how: %s", c.Message)
	}
	if keys := oursOn(h.namespace("given")); len(keys) > 0 {
		t.Fatalf("it was taken without being given: %v", keys)
	}
	// Nor is an offer to another one, of this name or not.
	for _, to := range []string{"else", "shop/another-uid"} {
		if err := h.give(owner, "given", to); err != nil {
			t.Fatal(err)
		}
	}
	h.change("shop", func(s *api.TenantSpec) { s.Members[0].Role = api.RoleView }) // it is looked at once more
	h.eventually("it has been looked at", func(context.Context) error {
		if now := h.tenant("shop"); now.Status.Effective == nil || len(now.Status.Effective.Members) < 2 || now.Status.Effective.Members[1].Role != api.RoleView {
			return errors.New("not yet")
		}
		return nil
	})
	if namespace := h.namespace("given"); namespace.Labels[api.LabelTenant] != "" {
		t.Fatal("it was given to another one")
	}
	if err := h.give(owner, "given", "shop/"+string(tenant.UID)); err != nil {
		t.Fatal(err)
	}
	h.waitForPhase("shop", api.PhaseReady)
	h.holds("given", "admin=lead", "view=dev")
	namespace := h.namespace("given")
	if namespace.UID != before.UID || namespace.Labels[api.LabelTenant] != "shop" || namespace.Labels["example.com/team"] != "a" {
		t.Errorf("the namespace is %+v", namespace.ObjectMeta)
	}
	if level := namespace.Labels["pod-security.kubernetes.io/enforce"]; level != "baseline" {
		t.Errorf("it enforces %s", level)
	}
	if offer, there := namespace.Annotations[api.AnnotationGiveTo]; there {
		t.Errorf("the offer still stands: %s", offer)
	}
	// It is a tenant's now: nobody takes it away, gives it on or deletes it.
	for name, attempt := range map[string]func(*corev1.Namespace){
		"label":    func(n *corev1.Namespace) { delete(n.Labels, api.LabelTenant) },
		"give on":  func(n *corev1.Namespace) { n.Annotations[api.AnnotationGiveTo] = "else" },
		"no mark":  func(n *corev1.Namespace) { delete(n.Annotations, api.AnnotationAdopted) },
		"security": func(n *corev1.Namespace) { n.Labels["pod-security.kubernetes.io/enforce"] = "privileged" },
	} {
		changed := namespace.DeepCopy()
		attempt(changed)
		if err := owner.Patch(t.Context(), changed, client.MergeFrom(namespace)); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := owner.Delete(t.Context(), h.namespace("given")); !apierrors.IsForbidden(err) {
		t.Errorf("deleting it: %v", err)
	}

	// Deleting the tenant gives it back as it was.
	h.remove("shop")
	namespace = h.namespace("given")
	if namespace.UID != before.UID || !namespace.DeletionTimestamp.IsZero() {
		t.Fatal("the namespace went with the tenant")
	}
	if keys := oursOn(namespace); len(keys) > 0 {
		t.Errorf("left on it: %v", keys)
	}
	if got, want := namespace.Labels, before.Labels; !maps.Equal(got, want) {
		t.Errorf("labels are %v, were %v", got, want)
	}
	if err := h.client.Get(t.Context(), client.ObjectKey{Namespace: "given", Name: "kept"}, &corev1.ConfigMap{}); err != nil {
		t.Errorf("what was in it: %v", err)
	}
	for _, list := range []client.ObjectList{&corev1.ResourceQuotaList{}, &corev1.LimitRangeList{}, &networkingv1.NetworkPolicyList{}, &rbacv1.RoleBindingList{}} {
		if err := h.client.List(t.Context(), list, client.InNamespace("given"), client.HasLabels{api.LabelComponent}); err != nil {
			t.Fatal(err)
		}
		if n := metaLen(list); n > 0 {
			t.Errorf("%d of %T are left", n, list)
		}
	}
	// And it is its owner's again: to give once more, or to delete.
	again := below("team", namespaceTenant("given"))
	h.create(again)
	if err := h.give(owner, "given", "given"); err != nil {
		t.Fatal(err)
	}
	h.waitForPhase("given", api.PhaseReady)
	h.remove("given")
	if err := owner.Delete(t.Context(), h.namespace("given")); err != nil {
		t.Errorf("deleting what is no tenant's any more: %v", err)
	}
}

func metaLen(list client.ObjectList) int {
	switch l := list.(type) {
	case *corev1.ResourceQuotaList:
		return len(l.Items)
	case *corev1.LimitRangeList:
		return len(l.Items)
	case *networkingv1.NetworkPolicyList:
		return len(l.Items)
	case *rbacv1.RoleBindingList:
		return len(l.Items)
	}
	return -1
}

// testUnfit: what was made before admission looked does not open the fence.
func testUnfit(h *managedHost) {
	t := h.t
	h.exists("unfit", nil)
	planted := map[string]client.Object{
		"everywhere":   &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "everywhere", Namespace: "unfit"}, Spec: wide()},
		"disguised":    &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "disguised", Namespace: "unfit", Labels: map[string]string{api.LabelComponent: api.ComponentFence, api.LabelTenant: "unfit"}}, Spec: wide()},
		"sublet-pods":  &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "sublet-pods", Namespace: "unfit"}, Spec: corev1.ResourceQuotaSpec{Scopes: []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeTerminating}}},
		"sublet-admin": &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "sublet-admin", Namespace: "unfit"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"}},
	}
	for _, object := range planted {
		h.create(object)
	}
	// What the fence would let in stays.
	fine := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "fine", Namespace: "unfit"}, Spec: networkingv1.NetworkPolicySpec{
		Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}}},
	}}
	h.create(fine)
	h.create(with(namespaceTenant("unfit"), user("dev", api.RoleEdit)))
	if err := h.give(h.as("owner"), "unfit", "unfit"); err != nil {
		t.Fatal(err)
	}
	c := h.waitFor("unfit", api.ConditionNamespaceReady, "NamespaceUnfit")
	for name := range planted {
		if !strings.Contains(c.Message, name) {
			t.Errorf("%s is not named in: %s", name, c.Message)
		}
	}
	if strings.Contains(c.Message, "fine") || h.namespace("unfit").Labels[api.LabelTenant] != "" {
		t.Errorf("%s %v", c.Message, h.namespace("unfit").Labels)
	}
	for _, object := range planted {
		if err := h.client.Delete(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	h.waitForPhase("unfit", api.PhaseReady)
	if err := h.client.Get(t.Context(), client.ObjectKeyFromObject(fine), fine); err != nil {
		t.Error(err)
	}
	// From now on admission looks.
	late := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "late", Namespace: "unfit"}, Spec: wide()}
	if err := h.client.Create(t.Context(), late); !apierrors.IsForbidden(err) {
		t.Errorf("a policy that opens: %v", err)
	}
	h.remove("unfit")
}

func testAdoptionAttacks(h *managedHost) {
	t := h.t
	h.exists("own", nil)
	h.exists("others", nil)
	h.exists("kube-given", nil)
	owner, lead := h.as("owner"), h.as("lead")
	// Without the right to update the namespace.
	for name, who := range map[string]client.Client{"lead": lead, "nobody": h.as("nobody")} {
		if err := h.give(who, "others", "prey"); !apierrors.IsForbidden(err) {
			t.Errorf("%s gives another's namespace: %v", name, err)
		}
	}
	if err := h.give(owner, "others", "prey"); !apierrors.IsForbidden(err) {
		t.Errorf("owner gives another's namespace: %v", err)
	}
	// An admin of a tenant names it nevertheless.
	prey := below("team", namespaceTenant("prey"))
	prey.Spec.Namespace = "others"
	if err := lead.Create(t.Context(), prey); err != nil {
		t.Fatal(err)
	}
	h.waitFor("prey", api.ConditionNamespaceReady, "NamespaceTaken")
	// With the right: the offer and nothing else of ours.
	namespace := h.namespace("own")
	for name, attempt := range map[string]func(*corev1.Namespace){
		"the label of a tenant": func(n *corev1.Namespace) { n.Labels[api.LabelTenant] = "prey" },
		"the mark of adoption":  func(n *corev1.Namespace) { n.Annotations = map[string]string{api.AnnotationAdopted: ""} },
		"the uid":               func(n *corev1.Namespace) { n.Annotations = map[string]string{api.AnnotationTenantUID: "x"} },
		"offer and label": func(n *corev1.Namespace) {
			n.Annotations = map[string]string{api.AnnotationGiveTo: "prey"}
			n.Labels[api.LabelTenant] = "prey"
		},
	} {
		changed := namespace.DeepCopy()
		attempt(changed)
		if err := owner.Patch(t.Context(), changed, client.MergeFrom(namespace), client.DryRunAll); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := owner.Patch(t.Context(), func() *corev1.Namespace {
		n := namespace.DeepCopy()
		n.Annotations = map[string]string{api.AnnotationGiveTo: "prey"}
		return n
	}(), client.MergeFrom(namespace), client.DryRunAll); err != nil {
		t.Errorf("the offer: %v", err)
	}
	// The host's own stay so, whoever gives them.
	for tenant, name := range map[string]string{"takes-kube": "kube-given", "takes-default": "default", "takes-own": api.SystemNamespace} {
		wanting := namespaceTenant(tenant)
		wanting.Spec.Namespace = name
		h.create(wanting)
		if err := h.give(h.client, name, tenant); err != nil {
			t.Fatal(err)
		}
		h.waitFor(tenant, api.ConditionNamespaceReady, "NamespaceReserved")
	}
	// Even a manager that was taken over has what was given only.
	manager := h.as("system:serviceaccount:"+api.SystemNamespace+":"+api.ManagerName, "system:serviceaccounts")
	for _, c := range []struct {
		namespace, tenant string
		may               bool
	}{{"others", "prey", false}, {"kube-given", "takes-kube", false}, {"default", "takes-default", false}, {api.SystemNamespace, "takes-own", false}, {"own", "else", false}, {"own", "prey", true}} {
		if c.namespace == "own" {
			if err := h.give(owner, "own", "prey"); err != nil {
				t.Fatal(err)
			}
		}
		before := h.namespace(c.namespace)
		after := before.DeepCopy()
		if after.Labels == nil {
			after.Labels = map[string]string{}
		}
		after.Labels[api.LabelTenant] = c.tenant
		err := manager.Patch(t.Context(), after, client.MergeFrom(before), client.DryRunAll)
		if c.may != (err == nil) || err != nil && !apierrors.IsForbidden(err) {
			t.Errorf("the manager takes %s for %s: %v", c.namespace, c.tenant, err)
		}
	}
	for _, name := range []string{"others", "kube-given", "default", api.SystemNamespace} {
		if now := h.namespace(name); now.Labels[api.LabelTenant] != "" {
			t.Errorf("%s is a tenant's: %v", name, now.Labels)
		}
	}
	// An offer that is withdrawn is none.
	h.exists("withdrawn", nil)
	if err := h.give(owner, "withdrawn", "slow"); err != nil {
		t.Fatal(err)
	}
	offer := h.namespace("withdrawn")
	without := offer.DeepCopy()
	delete(without.Annotations, api.AnnotationGiveTo)
	if err := owner.Patch(t.Context(), without, client.MergeFrom(offer)); err != nil {
		t.Fatal(err)
	}
	slow := namespaceTenant("slow")
	slow.Spec.Namespace = "withdrawn"
	h.create(slow)
	h.waitFor("slow", api.ConditionNamespaceReady, "NamespaceTaken")
	h.remove("prey", "takes-kube", "takes-default", "takes-own", "slow")
	for _, name := range []string{"others", "own", "kube-given", "default"} {
		if now := h.namespace(name); !now.DeletionTimestamp.IsZero() {
			t.Errorf("%s went with a tenant that it was not given to", name)
		}
	}
}

// testAdoptedByOthers: a virtual cluster's namespace has nothing but what Sublet
// put there; it is not given.
func testAdoptedByOthers(h *managedHost) {
	t := h.t
	h.exists("vc", nil)
	if err := h.give(h.as("owner"), "vc", "vc"); err != nil {
		t.Fatal(err)
	}
	h.create(virtualCluster("vc"))
	c := h.waitFor("vc", api.ConditionNamespaceReady, "NamespaceTaken")
	if strings.Contains(c.Message, api.AnnotationGiveTo) {
		t.Errorf("it suggests what does not help: %s", c.Message)
	}
	h.remove("vc")
	// One that is left to a tenant by being deleted is made anew, and is the
	// tenant's own.
	h.exists("late", nil)
	h.create(namespaceTenant("late"))
	h.waitFor("late", api.ConditionNamespaceReady, "NamespaceTaken")
	if err := h.as("owner").Delete(t.Context(), h.namespace("late")); err != nil {
		t.Fatal(err)
	}
	h.waitForPhase("late", api.PhaseReady)
	if _, marked := h.namespace("late").Annotations[api.AnnotationAdopted]; marked {
		t.Error("what was made for the tenant counts as adopted")
	}
	h.remove("late")
	h.eventually("the namespace went with the tenant", func(ctx context.Context) error {
		if err := h.client.Get(ctx, key("late"), &corev1.Namespace{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %v", err)
		}
		return nil
	})
}
