package controlplane

import (
	"context"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	flowcontrolbootstrap "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kube-aggregator/pkg/controllers/autoregister"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	schedulingv1 "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	"k8s.io/kubernetes/pkg/controlplane/controller/defaultservicecidr"
	"k8s.io/kubernetes/pkg/controlplane/controller/legacytokentracking"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
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
func seed(ctx context.Context, client *clientv3.Client, s *apiServer, port int) (bool, error) {
	o := s.options
	services, err := s.apiServices()
	if err != nil {
		return false, fmt.Errorf("seeding: %w", err)
	}
	objects := slices.Concat(systemNamespaces(), rbacObjects(), priorityClasses(), flowControl(), bindingObjects(o.Profile, o.Members),
		tokenTracking(), serviceRange(o), kubernetesService(s.config.KubeAPIs.Extra.APIServerServiceIP, o.KubernetesServicePort, port), services)
	var puts []clientv3.Op
	var first string
	e := encoder{
		factory: s.config.KubeAPIs.ControlPlane.StorageFactory.(*serverstorage.DefaultStorageFactory),
		prefix:  s.config.Options.Etcd.StorageConfig.Prefix,
		now:     metav1.Now(),
	}
	for _, object := range objects {
		key, value, err := e.encode(object)
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
	// aggregator tells that it is stored by the aggregator, in its own way.
	aggregator bool
}

// encoder gives objects the shape that the API server would have stored.
type encoder struct {
	factory *serverstorage.DefaultStorageFactory
	prefix  string
	now     metav1.Time
}

func (e encoder) encode(s seeded) (key, value string, err error) {
	legacyscheme.Scheme.Default(s.object)
	accessor, err := meta.Accessor(s.object)
	if err != nil {
		return "", "", err
	}
	rest.FillObjectMetaSystemFields(accessor)
	accessor.SetCreationTimestamp(e.now)
	codec, directory := aggregatorscheme.Codecs.LegacyCodec(apiregistrationv1.SchemeGroupVersion), path.Join(s.resource.Group, s.resource.Resource)
	if !s.aggregator {
		config, err := e.factory.NewConfig(s.resource, s.object)
		if err != nil {
			return "", "", fmt.Errorf("storage of %s: %w", s.resource, err)
		}
		codec, directory = config.Codec, e.factory.ResourcePrefix(s.resource)
	}
	encoded, err := runtime.Encode(codec, s.object)
	if err != nil {
		return "", "", fmt.Errorf("encoding %s %q: %w", s.resource, accessor.GetName(), err)
	}
	return path.Join("/", e.prefix, directory, accessor.GetNamespace(), accessor.GetName()), string(encoded), nil
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
		objects = append(objects, seeded{resource: resource("clusterroles"), object: &policy.ClusterRoles[i]})
	}
	for i := range policy.ClusterRoleBindings {
		objects = append(objects, seeded{resource: resource("clusterrolebindings"), object: &policy.ClusterRoleBindings[i]})
	}
	for namespace, roles := range policy.Roles {
		for i := range roles {
			roles[i].Namespace = namespace
			objects = append(objects, seeded{resource: resource("roles"), object: &roles[i]})
		}
	}
	for namespace, bindings := range policy.RoleBindings {
		for i := range bindings {
			bindings[i].Namespace = namespace
			objects = append(objects, seeded{resource: resource("rolebindings"), object: &bindings[i]})
		}
	}
	return objects
}

func priorityClasses() []seeded {
	var objects []seeded
	for _, class := range schedulingv1.SystemPriorityClasses() {
		objects = append(objects, seeded{resource: schema.GroupResource{Group: "scheduling.k8s.io", Resource: "priorityclasses"}, object: class})
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
		objects = append(objects, seeded{resource: schema.GroupResource{Group: flowcontrolv1.GroupName, Resource: resource}, object: object})
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
		objects = append(objects, seeded{resource: schema.GroupResource{Group: rbacv1.GroupName, Resource: "clusterrolebindings"}, object: &binding})
	}
	return objects
}

// tokenTracking says since when it is written down that tokens of Secrets are
// used. The controller that deletes unused ones asks for it as soon as it runs.
func tokenTracking() []seeded {
	return []seeded{{
		resource: schema.GroupResource{Resource: "configmaps"},
		object: &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: legacytokentracking.ConfigMapName, Namespace: metav1.NamespaceSystem},
			Data:       map[string]string{legacytokentracking.ConfigMapDataKey: time.Now().UTC().Format(time.DateOnly)},
		},
	}}
}

// serviceRange is the range of ClusterIPs, without which no Service is made.
// Upstream makes it while readiness waits, and looks for it ten times a second.
func serviceRange(o Options) []seeded {
	return []seeded{{
		resource: schema.GroupResource{Group: networkingv1.GroupName, Resource: "servicecidrs"},
		object: &networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{Name: defaultservicecidr.DefaultServiceCIDRName},
			Spec:       networkingv1.ServiceCIDRSpec{CIDRs: o.ServiceCIDRs},
			Status: networkingv1.ServiceCIDRStatus{Conditions: []metav1.Condition{{
				Type:               networkingv1.ServiceCIDRConditionReady,
				Status:             metav1.ConditionTrue,
				Message:            "Kubernetes default Service CIDR is ready",
				LastTransitionTime: metav1.Now(),
			}}},
		},
	}}
}

// kubernetesService is default/kubernetes with its address, which upstream makes
// once it is ready. Whoever looks for the API server in a cluster finds it there.
func kubernetesService(ip net.IP, port, target int) []seeded {
	family, familyLabel := corev1.IPv6Protocol, string(corev1.IPv6Protocol)
	if ip.To4() != nil {
		family, familyLabel = corev1.IPv4Protocol, string(corev1.IPv4Protocol)
	}
	single := corev1.IPFamilyPolicySingleStack
	return []seeded{
		{
			resource: schema.GroupResource{Resource: "services"},
			object: &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{
					Name:      kubernetesServiceName,
					Namespace: metav1.NamespaceDefault,
					Labels:    map[string]string{"provider": "kubernetes", "component": "apiserver"},
				},
				Spec: corev1.ServiceSpec{
					Type:            corev1.ServiceTypeClusterIP,
					ClusterIP:       ip.String(),
					ClusterIPs:      []string{ip.String()},
					IPFamilies:      []corev1.IPFamily{family},
					IPFamilyPolicy:  &single,
					SessionAffinity: corev1.ServiceAffinityNone,
					Ports: []corev1.ServicePort{{
						Name:       "https",
						Protocol:   corev1.ProtocolTCP,
						Port:       int32(port),
						TargetPort: intstr.FromInt32(int32(target)),
					}},
				},
			},
		},
		{
			resource: schema.GroupResource{Group: networkingv1.GroupName, Resource: "ipaddresses"},
			object: &networkingv1.IPAddress{
				ObjectMeta: metav1.ObjectMeta{
					Name: ip.String(),
					Labels: map[string]string{
						networkingv1.LabelIPAddressFamily: familyLabel,
						networkingv1.LabelManagedBy:       ipallocator.ControllerName,
					},
				},
				Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{
					Resource: "services", Namespace: metav1.NamespaceDefault, Name: kubernetesServiceName,
				}},
			},
		},
	}
}

// apiServices are the versions of groups that the API server serves itself, as
// the aggregator registers them: one request after the other while readiness
// waits. What it finds as it should be, it leaves alone.
func (s *apiServer) apiServices() ([]seeded, error) {
	var objects []seeded
	priorities := groupPriorities()
	for _, served := range s.kube.ControlPlane.GenericAPIServer.ListedPaths() {
		version, ok := groupVersionOf(served)
		if !ok {
			continue
		}
		priority, ok := priorities[version]
		if !ok {
			continue
		}
		service := &apiregistrationv1.APIService{
			ObjectMeta: metav1.ObjectMeta{
				Name:   version.Version + "." + version.Group,
				Labels: map[string]string{autoregister.AutoRegisterManagedLabel: "onstart"},
			},
			Spec: apiregistrationv1.APIServiceSpec{
				Group:                version.Group,
				Version:              version.Version,
				GroupPriorityMinimum: priority.Group,
				VersionPriority:      priority.Version,
			},
		}
		internal := &apiregistration.APIService{}
		if err := aggregatorscheme.Scheme.Convert(service, internal, nil); err != nil {
			return nil, err
		}
		apiregistration.SetAPIServiceCondition(internal, apiregistration.NewLocalAvailableAPIServiceCondition())
		objects = append(objects, seeded{
			resource:   schema.GroupResource{Group: apiregistrationv1.GroupName, Resource: "apiservices"},
			object:     internal,
			aggregator: true,
		})
	}
	return objects, nil
}

// groupVersionOf reads a path that is the root of a group's version.
func groupVersionOf(served string) (schema.GroupVersion, bool) {
	if served == "/api/v1" {
		return schema.GroupVersion{Version: "v1"}, true
	}
	parts := strings.Split(served, "/")
	if len(parts) != 4 || parts[1] != "apis" {
		return schema.GroupVersion{}, false
	}
	return schema.GroupVersion{Group: parts[2], Version: parts[3]}, true
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
