package virtualcluster

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

const (
	httpsPort = 443
	dnsPort   = 53
)

// Object is any Kubernetes object.
type Object interface {
	metav1.Object
	runtime.Object
}

// Labels of everything that makes up a tenant's control plane.
func Labels(tenant string) map[string]string {
	return map[string]string{
		api.LabelTenant:    tenant,
		api.LabelComponent: api.ComponentControlPlane,
	}
}

// Server is the URL of the tenant's API inside the host cluster.
func Server(namespace string) string {
	return fmt.Sprintf("https://%s.%s.svc:%d", api.ControlPlaneName, namespace, httpsPort)
}

// Endpoint is host and port of the tenant's API inside the host cluster.
func Endpoint(namespace string) string {
	return fmt.Sprintf("%s.%s.svc:%d", api.ControlPlaneName, namespace, httpsPort)
}

func meta(e tenancy.Effective, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: e.Namespace, Labels: Labels(e.Name)}
}

func typeMeta(apiVersion, kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: apiVersion, Kind: kind}
}

// APIService leads to the tenant's API. It takes connections before the pod is
// ready, because the control plane asks itself.
func APIService(e tenancy.Effective) *corev1.Service {
	return service(e, api.ControlPlaneName, corev1.ServicePort{
		Name: "https", Port: httpsPort, TargetPort: intstr.FromInt(api.APIServerPort), Protocol: corev1.ProtocolTCP,
	})
}

// DNSService leads to the tenant's DNS.
func DNSService(e tenancy.Effective) *corev1.Service {
	return service(e, api.DNSServiceName,
		corev1.ServicePort{Name: "dns", Port: dnsPort, TargetPort: intstr.FromInt(api.DNSPort), Protocol: corev1.ProtocolUDP},
		corev1.ServicePort{Name: "dns-tcp", Port: dnsPort, TargetPort: intstr.FromInt(api.DNSPort), Protocol: corev1.ProtocolTCP},
	)
}

func service(e tenancy.Effective, name string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{
		TypeMeta:   typeMeta("v1", "Service"),
		ObjectMeta: meta(e, name),
		Spec: corev1.ServiceSpec{
			Type:                     corev1.ServiceTypeClusterIP,
			Selector:                 Labels(e.Name),
			PublishNotReadyAddresses: true,
			Ports:                    ports,
		},
	}
}

// ServiceAccounts are the control plane's own, and the one without any right
// under which the tenant's pods run on the host.
func ServiceAccounts(e tenancy.Effective) []Object {
	account := func(name string, token bool) Object {
		return &corev1.ServiceAccount{
			TypeMeta:                     typeMeta("v1", "ServiceAccount"),
			ObjectMeta:                   meta(e, name),
			AutomountServiceAccountToken: &token,
		}
	}
	return []Object{
		account(api.ControlPlaneName, true),
		account(api.WorkloadServiceAccountName, false),
	}
}

// Bindings give the syncer its rights: in the tenant's namespace, and to read a
// few cluster-scoped kinds.
func Bindings(e tenancy.Effective, owner metav1.OwnerReference) []Object {
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: api.ControlPlaneName, Namespace: e.Namespace}}
	clusterMeta := meta(e, api.SyncerReadClusterRole+"-"+e.Name)
	clusterMeta.Namespace = ""
	clusterMeta.OwnerReferences = []metav1.OwnerReference{owner}
	return []Object{
		&rbacv1.RoleBinding{
			TypeMeta:   typeMeta("rbac.authorization.k8s.io/v1", "RoleBinding"),
			ObjectMeta: meta(e, api.ControlPlaneName),
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: api.SyncerClusterRole},
			Subjects:   subjects,
		},
		&rbacv1.ClusterRoleBinding{
			TypeMeta:   typeMeta("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
			ObjectMeta: clusterMeta,
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: api.SyncerReadClusterRole},
			Subjects:   subjects,
		},
	}
}

// PKISecret holds the tenant's certificate authorities and signing keys. It is
// immutable: without these keys the tenant's data is of no use.
func PKISecret(e tenancy.Effective, data map[string][]byte) *corev1.Secret {
	immutable := true
	return &corev1.Secret{
		TypeMeta:   typeMeta("v1", "Secret"),
		ObjectMeta: meta(e, api.PKISecretName),
		Immutable:  &immutable,
		Type:       corev1.SecretTypeOpaque,
		Data:       data,
	}
}

// KubeconfigSecretName names the Secret with the kubeconfig of a role.
func KubeconfigSecretName(role api.Role) string {
	return api.KubeconfigSecretPrefix + string(role)
}

// KubeconfigSecret holds the kubeconfig with which members of a role reach the
// tenant's API, to be renewed at the given time.
func KubeconfigSecret(e tenancy.Effective, role api.Role, kubeconfig []byte, renewAt time.Time) *corev1.Secret {
	secret := &corev1.Secret{
		TypeMeta:   typeMeta("v1", "Secret"),
		ObjectMeta: meta(e, KubeconfigSecretName(role)),
		Type:       corev1.SecretTypeOpaque,
		Data:       map[string][]byte{api.KubeconfigSecretKey: kubeconfig},
	}
	secret.Annotations = map[string]string{api.AnnotationRenewAt: renewAt.UTC().Format(time.RFC3339)}
	return secret
}

// Addresses are what the host gave to the control plane.
type Addresses struct {
	// ServiceCIDRs are the host's service ranges.
	ServiceCIDRs []string
	// APIServiceIP and DNSServiceIP are the ClusterIPs of the two Services.
	APIServiceIP, DNSServiceIP string
	// HostAPI is where the host's API is, as ADDRESS:PORT.
	HostAPI []string
}

// Config is what the control plane is told.
func Config(e tenancy.Effective, a Addresses) api.ControlPlaneConfig {
	return api.ControlPlaneConfig{
		Tenant:                    e.Name,
		HostNamespace:             e.Namespace,
		Version:                   e.VirtualCluster.Version,
		FeatureGates:              e.VirtualCluster.FeatureGates,
		RuntimeConfig:             e.VirtualCluster.RuntimeConfig,
		ServiceCIDRs:              a.ServiceCIDRs,
		APIServiceIP:              a.APIServiceIP,
		DNSServiceIP:              a.DNSServiceIP,
		HostAPI:                   a.HostAPI,
		Members:                   e.Members,
		PodSecurity:               e.Limits.PodSecurity,
		Services:                  e.Limits.Services,
		StorageClasses:            e.Limits.StorageClasses,
		RuntimeClass:              e.Limits.RuntimeClass,
		NodeSelector:              e.Limits.NodeSelector,
		RuntimeClasses:            e.Limits.RuntimeClasses,
		PriorityClasses:           e.Limits.PriorityClasses,
		Tolerations:               e.Limits.Tolerations,
		IngressClasses:            e.Limits.IngressClasses,
		Gateways:                  e.Limits.Gateways,
		Hosts:                     e.Limits.Hosts,
		ServiceAccountAnnotations: e.Limits.ServiceAccountAnnotations,
		CustomResources:           e.Limits.CustomResources,
		Nodes:                     e.VirtualCluster.Nodes,
		Scheduler:                 e.VirtualCluster.Scheduler,
		Profiling:                 e.VirtualCluster.Profiling,
		Audit:                     e.VirtualCluster.Audit,
		Authentication:            e.VirtualCluster.Authentication,
	}
}

// ConfigMap holds the Config as a file.
func ConfigMap(e tenancy.Effective, config api.ControlPlaneConfig) (*corev1.ConfigMap, error) {
	content, err := yaml.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("write the configuration of tenant %q: %w", e.Name, err)
	}
	return &corev1.ConfigMap{
		TypeMeta:   typeMeta("v1", "ConfigMap"),
		ObjectMeta: meta(e, api.ControlPlaneName),
		Data:       map[string]string{api.ConfigKey: string(content)},
	}, nil
}
