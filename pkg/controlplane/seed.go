package controlplane

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	flowcontrolbootstrap "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	schedulingv1 "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	schedulingrest "k8s.io/kubernetes/pkg/registry/scheduling/rest"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// reconcileTimeout bounds one attempt to bring the seeded objects up to date.
const reconcileTimeout = 2 * time.Minute

// Kinds of subjects.
const (
	memberUser           = rbacv1.UserKind
	memberGroup          = rbacv1.GroupKind
	memberServiceAccount = rbacv1.ServiceAccountKind
)

// bindingLabel stands on the ClusterRoleBindings that this package keeps, and
// on no other.
const (
	bindingLabel = api.Prefix + "binding"
	bindingGroup = "group"
	bindingOther = "member"
)

// seed writes what every cluster has into an empty store, before anything is
// served: all in one transaction, so a crash leaves all of it or nothing. It
// tells whether the store was empty.
//
// Upstream, post-start hooks of the API server do this object by object while
// readiness waits; those hooks are off.
func seed(ctx context.Context, client *clientv3.Client, factory serverstorage.StorageFactory, o Options) (bool, error) {
	objects := slices.Concat(systemNamespaces(), rbacObjects(), priorityClasses(), flowControl(), bindingObjects(o.Profile, o.Members))
	var puts []clientv3.Op
	var first string
	now := metav1.Now()
	for _, object := range objects {
		key, value, err := encode(factory, object, now)
		if err != nil {
			return false, fmt.Errorf("seeding: %w", err)
		}
		if first == "" {
			first = key
		}
		puts = append(puts, clientv3.OpPut(key, value))
	}
	response, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(first), "=", 0)).
		Then(puts...).
		Commit()
	if err != nil {
		return false, fmt.Errorf("seeding: %w", err)
	}
	return response.Succeeded, nil
}

// seeded is an object and the resource that it is stored as.
type seeded struct {
	resource schema.GroupResource
	object   runtime.Object
}

// encode gives an object the shape that the API server would have stored.
func encode(factory serverstorage.StorageFactory, s seeded, now metav1.Time) (key, value string, err error) {
	config, err := factory.NewConfig(s.resource, s.object)
	if err != nil {
		return "", "", fmt.Errorf("storage of %s: %w", s.resource, err)
	}
	legacyscheme.Scheme.Default(s.object)
	accessor, err := meta.Accessor(s.object)
	if err != nil {
		return "", "", err
	}
	rest.FillObjectMetaSystemFields(accessor)
	accessor.SetCreationTimestamp(now)
	encoded, err := runtime.Encode(config.Codec, s.object)
	if err != nil {
		return "", "", fmt.Errorf("encoding %s %q: %w", s.resource, accessor.GetName(), err)
	}
	key = path.Join("/", config.Prefix, factory.ResourcePrefix(s.resource), accessor.GetNamespace(), accessor.GetName())
	return key, string(encoded), nil
}

func systemNamespaces() []seeded {
	var objects []seeded
	for _, name := range []string{metav1.NamespaceSystem, metav1.NamespacePublic, metav1.NamespaceDefault, corev1.NamespaceNodeLease} {
		objects = append(objects, seeded{
			resource: schema.GroupResource{Resource: "namespaces"},
			object: &corev1.Namespace{
				ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name}},
				Spec:       corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}},
				Status:     corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
			},
		})
	}
	return objects
}

// rbacPolicy is what upstream's hook would reconcile.
func rbacPolicy() *rbacrest.PolicyData {
	return &rbacrest.PolicyData{
		ClusterRoles:               append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...),
		ClusterRoleBindings:        append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...),
		Roles:                      bootstrappolicy.NamespaceRoles(),
		RoleBindings:               bootstrappolicy.NamespaceRoleBindings(),
		ClusterRolesToAggregate:    bootstrappolicy.ClusterRolesToAggregate(),
		ClusterRoleBindingsToSplit: bootstrappolicy.ClusterRoleBindingsToSplit(),
	}
}

func rbacObjects() []seeded {
	resource := func(name string) schema.GroupResource {
		return schema.GroupResource{Group: rbacv1.GroupName, Resource: name}
	}
	policy := rbacPolicy()
	var objects []seeded
	for i := range policy.ClusterRoles {
		objects = append(objects, seeded{resource("clusterroles"), &policy.ClusterRoles[i]})
	}
	for i := range policy.ClusterRoleBindings {
		objects = append(objects, seeded{resource("clusterrolebindings"), &policy.ClusterRoleBindings[i]})
	}
	for namespace, roles := range policy.Roles {
		for i := range roles {
			roles[i].Namespace = namespace
			objects = append(objects, seeded{resource("roles"), &roles[i]})
		}
	}
	for namespace, bindings := range policy.RoleBindings {
		for i := range bindings {
			bindings[i].Namespace = namespace
			objects = append(objects, seeded{resource("rolebindings"), &bindings[i]})
		}
	}
	return objects
}

func priorityClasses() []seeded {
	var objects []seeded
	for _, class := range schedulingv1.SystemPriorityClasses() {
		objects = append(objects, seeded{schema.GroupResource{Group: "scheduling.k8s.io", Resource: "priorityclasses"}, class})
	}
	return objects
}

// flowControl is what priority and fairness begins with. Upstream makes it one
// object after the other while readiness waits; now it finds all of it.
func flowControl() []seeded {
	var objects []seeded
	add := func(resource string, object interface {
		runtime.Object
		metav1.Object
	}) {
		// As the API server counts what it creates.
		object.SetGeneration(1)
		objects = append(objects, seeded{schema.GroupResource{Group: flowcontrolv1.GroupName, Resource: resource}, object})
	}
	for _, level := range slices.Concat(flowcontrolbootstrap.MandatoryPriorityLevelConfigurations, flowcontrolbootstrap.SuggestedPriorityLevelConfigurations) {
		add("prioritylevelconfigurations", level.DeepCopy())
	}
	for _, flow := range slices.Concat(flowcontrolbootstrap.MandatoryFlowSchemas, flowcontrolbootstrap.SuggestedFlowSchemas) {
		add("flowschemas", flow.DeepCopy())
	}
	return objects
}

func bindingObjects(profile Profile, members []Binding) []seeded {
	var objects []seeded
	for _, binding := range memberBindings(profile, members) {
		objects = append(objects, seeded{schema.GroupResource{Group: rbacv1.GroupName, Resource: "clusterrolebindings"}, &binding})
	}
	return objects
}

// reconcileSeed brings the objects of an older boot up to date, by upstream's
// own hooks, which keep what people added and honour the annotation
// rbac.authorization.kubernetes.io/autoupdate.
func reconcileSeed(ctx context.Context, config *restclient.Config) error {
	hook := genericapiserver.PostStartHookContext{Context: ctx, LoopbackClientConfig: config}
	if err := rbacPolicy().EnsureRBACPolicy()(hook); err != nil {
		return err
	}
	return schedulingrest.AddSystemPriorityClasses()(hook)
}

// memberRoles maps a member's role to a ClusterRole inside.
func memberRoles() map[api.Role]string {
	return map[api.Role]string{
		api.RoleAdmin: "cluster-admin",
		api.RoleEdit:  "edit",
		api.RoleView:  "view",
	}
}

func quotedRoles() []string {
	var roles []string
	for role := range memberRoles() {
		roles = append(roles, fmt.Sprintf("%q", role))
	}
	slices.Sort(roles)
	return roles
}

// memberBindings are the ClusterRoleBindings that there should be: one for each
// role's group, which certificates carry, and one for each role's members. A
// host knows nothing of the groups.
func memberBindings(profile Profile, members []Binding) []rbacv1.ClusterRoleBinding {
	groups := map[api.Role]string{
		api.RoleAdmin: api.GroupAdmin,
		api.RoleEdit:  api.GroupEdit,
		api.RoleView:  api.GroupView,
	}
	var bindings []rbacv1.ClusterRoleBinding
	for _, role := range []api.Role{api.RoleAdmin, api.RoleEdit, api.RoleView} {
		if profile != ProfileHost {
			bindings = append(bindings, memberBinding("sublet:"+string(role), bindingGroup, role,
				[]rbacv1.Subject{{Kind: memberGroup, APIGroup: rbacv1.GroupName, Name: groups[role]}}))
		}
		if subjects := memberSubjects(members, role); len(subjects) > 0 {
			bindings = append(bindings, memberBinding("sublet:members:"+string(role), bindingOther, role, subjects))
		}
	}
	return bindings
}

func memberBinding(name, label string, role api.Role, subjects []rbacv1.Subject) rbacv1.ClusterRoleBinding {
	return rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{bindingLabel: label}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: memberRoles()[role]},
		Subjects:   subjects,
	}
}

func memberSubjects(members []Binding, role api.Role) []rbacv1.Subject {
	var subjects []rbacv1.Subject
	for _, member := range members {
		if member.Role != role {
			continue
		}
		subject := rbacv1.Subject{Kind: member.Kind, APIGroup: rbacv1.GroupName, Name: member.Name}
		if member.Kind == memberServiceAccount {
			subject.APIGroup, subject.Namespace = "", member.Namespace
		}
		subjects = append(subjects, subject)
	}
	slices.SortFunc(subjects, func(a, b rbacv1.Subject) int {
		return strings.Compare(a.Kind+"/"+a.Namespace+"/"+a.Name, b.Kind+"/"+b.Namespace+"/"+b.Name)
	})
	return slices.Compact(subjects)
}

// reconcileMembers makes the bindings what memberBindings says, and removes
// those of members who are gone.
func reconcileMembers(ctx context.Context, config *restclient.Config, profile Profile, members []Binding) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	bindings := client.RbacV1().ClusterRoleBindings()
	existing, err := bindings.List(ctx, metav1.ListOptions{LabelSelector: bindingLabel})
	if err != nil {
		return fmt.Errorf("listing the bindings of members: %w", err)
	}
	stale := map[string]rbacv1.ClusterRoleBinding{}
	for _, binding := range existing.Items {
		stale[binding.Name] = binding
	}
	for _, wanted := range memberBindings(profile, members) {
		current, ok := stale[wanted.Name]
		delete(stale, wanted.Name)
		if ok && equality.Semantic.DeepEqual(current.Subjects, wanted.Subjects) &&
			equality.Semantic.DeepEqual(current.RoleRef, wanted.RoleRef) && equality.Semantic.DeepEqual(current.Labels, wanted.Labels) {
			continue
		}
		if ok && equality.Semantic.DeepEqual(current.RoleRef, wanted.RoleRef) {
			// In place: those who stay lose nothing when somebody comes or goes.
			current.Subjects, current.Labels = wanted.Subjects, wanted.Labels
			if _, err := bindings.Update(ctx, &current, metav1.UpdateOptions{}); err != nil {
				return fmt.Errorf("changing the binding %q: %w", wanted.Name, err)
			}
			continue
		}
		// A RoleRef cannot be changed, and a binding of that name may lack the
		// label, so it is made anew.
		if err := bindings.Delete(ctx, wanted.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("replacing the binding %q: %w", wanted.Name, err)
		}
		if _, err := bindings.Create(ctx, &wanted, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("replacing the binding %q: %w", wanted.Name, err)
		}
	}
	for name := range stale {
		if err := bindings.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("removing the binding %q: %w", name, err)
		}
	}
	return nil
}

// reconcile brings everything seeded up to date and tries until it worked.
func reconcile(ctx context.Context, config *restclient.Config, profile Profile, members []Binding) {
	logger := klog.FromContext(ctx)
	_ = wait.PollUntilContextCancel(ctx, 5*time.Second, true, func(ctx context.Context) (bool, error) {
		attempt, cancel := context.WithTimeout(ctx, reconcileTimeout)
		defer cancel()
		err := reconcileMembers(attempt, config, profile, members)
		if err == nil {
			err = reconcileSeed(attempt, config)
		}
		if err != nil && ctx.Err() == nil {
			logger.Error(err, "Bringing default roles and members up to date failed, trying again")
		}
		return err == nil, nil
	})
}
