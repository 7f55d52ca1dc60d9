package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/pki"
)

// Profile says what a control plane is for.
type Profile string

const (
	// ProfileTenant is a virtual cluster: no controller that manages machines,
	// routes or volumes, no leases, RBAC only. It is the default.
	ProfileTenant Profile = "tenant"
	// ProfileHost is a cluster with nodes of its own: RBAC and Node
	// authorization, NodeRestriction, every controller that needs no cloud.
	// Scheduler, kubelet and kube-proxy run elsewhere.
	ProfileHost Profile = "host"
)

// Options of one control plane. Name, DataDir, PKI and ServiceCIDRs are needed;
// the zero value of everything else works.
type Options struct {
	// Name is for logs, errors and the admin's kubeconfig.
	Name string
	// DataDir holds etcd's data, and nothing else may write there. It is made
	// when it is missing and never removed.
	DataDir string
	// Profile is ProfileTenant when empty.
	Profile Profile
	// PKI is all that must outlive a restart.
	PKI *pki.Bundle

	// BindAddress is 127.0.0.1 when empty; BindPort 0 takes any free port.
	BindAddress string
	BindPort    int
	// AdvertiseAddress is where nodes and pods reach this API server; with
	// ProfileHost it becomes the endpoint of default/kubernetes. Empty means
	// BindAddress, or an address of the machine if that is unspecified.
	AdvertiseAddress string
	// ServerNames and ServerIPs are added to the names of the serving
	// certificate, which always has all forms of kubernetes.default.svc,
	// localhost, 127.0.0.1, ::1 and the addresses above.
	ServerNames []string
	ServerIPs   []net.IP

	// ServiceCIDRs are the ranges of ClusterIPs, at most one for each IP family.
	ServiceCIDRs []string
	// KubernetesServiceIP is the ClusterIP of default/kubernetes; nil means the
	// first of the first range.
	KubernetesServiceIP net.IP
	// KubernetesServicePort is 443 when 0.
	KubernetesServicePort int
	// ClusterDomain is cluster.local when empty.
	ClusterDomain string

	// EmulatedVersion is the Kubernetes version whose API is served, such as
	// "1.34"; empty means that of the libraries.
	EmulatedVersion string
	// FeatureGates by name. Feature gates and the emulated version are one set
	// for a process: see Start.
	FeatureGates map[string]bool
	// RuntimeConfig switches groups and versions, as kube-apiserver's
	// --runtime-config does.
	RuntimeConfig map[string]string

	// PodSecurity is the level that Pod Security admission enforces in
	// namespaces without a label; empty means privileged.
	PodSecurity string

	// Members get ClusterRoleBindings inside, which go away when the member
	// does. The groups of package api are bound always.
	Members []Binding

	// ServiceAllocator is asked before a Service is stored; nil means that the
	// API server allocates by itself.
	ServiceAllocator ServiceAllocator

	// KubeletDialer opens each connection from the API server to a node; nil
	// means the network's. Whatever answers must serve TLS with a certificate
	// that PKI.CA issued for the host in address. The API server shows a client
	// certificate by PKI.CA for the user pki.KubeletClientName in the group
	// system:masters. Without a dialer the certificates of kubelets are not
	// verified, as kubelets make their own.
	KubeletDialer func(ctx context.Context, network, address string) (net.Conn, error)

	// Profiling serves profiles of the Go runtime under /debug/pprof, to those
	// whose role lets them get that path.
	Profiling bool

	// Scheduler runs a scheduler. With ProfileTenant it leaves volumes to the
	// host.
	Scheduler bool

	// EgressDialer opens each connection that objects in the API ask for, to
	// webhooks, aggregated API servers, and through proxies to pods, Services and
	// nodes; nil means the network's. Whatever it refuses, they do not reach. The
	// address may be a name.
	EgressDialer func(ctx context.Context, network, address string) (net.Conn, error)

	// LocalAPIs are served besides Kubernetes' own.
	LocalAPIs []LocalAPI

	// Audit writes requests down: to AuditLog, a file or "-" for standard output,
	// unless it has a webhook. Nil means that none is.
	Audit    *api.AuditSpec
	AuditLog string
	// Authentication adds issuers of tokens that are believed.
	Authentication *api.AuthenticationSpec

	// ReadyChecks must pass for /readyz to be ok, beside those of the API
	// server. They do not hold up Start, and clients with Config do not see
	// them: whatever they wait for may need a control plane that has started.
	ReadyChecks []ReadyCheck

	// Loopback is called while Start runs, with what Config gives later: who uses
	// it may begin, and its requests wait until the API server answers.
	Loopback func(*rest.Config)
}

// Binding gives a subject a role in the whole control plane.
type Binding struct {
	// Kind is User, Group or ServiceAccount; Namespace is for the last.
	Kind, Name, Namespace string
	Role                  api.Role
}

// ReadyCheck is one more condition of readiness.
type ReadyCheck struct {
	// Name as shown by /readyz?verbose, of letters, digits and dashes.
	Name string
	// Check returns what is missing. It is called with each probe, so it must
	// not block.
	Check func() error
}

// ServiceAllocator gives Services their addresses and ports.
type ServiceAllocator interface {
	// AllocateService fills clusterIP, clusterIPs, node ports and the health
	// check port into svc before it is stored; old is nil when it is being
	// created. In an update svc may lack what old has, and means to keep it. With
	// dryRun nothing may be kept. An error refuses the request: an API status
	// error is passed on as it is. ctx ends with the request: what it came to can
	// be looked up then.
	AllocateService(ctx context.Context, svc, old *corev1.Service, dryRun bool) error
}

const (
	defaultBindAddress   = "127.0.0.1"
	defaultClusterDomain = "cluster.local"
	defaultServicePort   = 443
)

// withDefaults fills in what is empty.
func (o Options) withDefaults() Options {
	if o.Profile == "" {
		o.Profile = ProfileTenant
	}
	if o.BindAddress == "" {
		o.BindAddress = defaultBindAddress
	}
	if o.ClusterDomain == "" {
		o.ClusterDomain = defaultClusterDomain
	}
	if o.KubernetesServicePort == 0 {
		o.KubernetesServicePort = defaultServicePort
	}
	if o.PodSecurity == "" {
		o.PodSecurity = string(podSecurityLevels()[0])
	}
	return o
}

// validate checks what the API server would not, or not as clearly. It wants
// options with defaults.
func (o Options) validate() error {
	var errs []error
	if o.Name == "" {
		errs = append(errs, errors.New("Name is needed"))
	}
	if o.DataDir == "" {
		errs = append(errs, errors.New("DataDir is needed"))
	}
	if o.PKI == nil {
		errs = append(errs, errors.New("PKI is needed"))
	}
	if !slices.Contains(profiles(), o.Profile) {
		errs = append(errs, fmt.Errorf("Profile is %q; known are %q", o.Profile, profiles()))
	}
	if net.ParseIP(o.BindAddress) == nil {
		errs = append(errs, fmt.Errorf("BindAddress is %q; it must be an IP address", o.BindAddress))
	}
	if o.AdvertiseAddress != "" && net.ParseIP(o.AdvertiseAddress) == nil {
		errs = append(errs, fmt.Errorf("AdvertiseAddress is %q; it must be an IP address", o.AdvertiseAddress))
	}
	errs = append(errs, o.validateServices()...)
	if o.Audit != nil && o.Audit.Webhook == nil && o.AuditLog == "" {
		errs = append(errs, errors.New("Audit needs AuditLog or a webhook"))
	}
	if !slices.Contains(podSecurityLevels(), o.PodSecurity) {
		errs = append(errs, fmt.Errorf("PodSecurity is %q; known are %q", o.PodSecurity, podSecurityLevels()))
	}
	for _, member := range o.Members {
		if err := member.validate(); err != nil {
			errs = append(errs, err)
		}
	}
	for _, local := range o.LocalAPIs {
		if err := local.validate(); err != nil {
			errs = append(errs, err)
		}
	}
	for _, check := range o.ReadyChecks {
		if check.Name == "" || check.Check == nil {
			errs = append(errs, errors.New("each of ReadyChecks needs Name and Check"))
		}
	}
	return errors.Join(errs...)
}

func (o Options) validateServices() []error {
	if len(o.ServiceCIDRs) == 0 {
		return []error{errors.New("ServiceCIDRs is empty: at least one range of ClusterIPs is needed")}
	}
	var errs []error
	var first *net.IPNet
	families := map[bool]string{}
	for _, cidr := range o.ServiceCIDRs {
		_, parsed, err := net.ParseCIDR(cidr)
		if err != nil {
			errs = append(errs, fmt.Errorf("ServiceCIDRs has %q; a range looks like 10.96.0.0/16", cidr))
			continue
		}
		if first == nil {
			first = parsed
		}
		isIPv4 := parsed.IP.To4() != nil
		if other, taken := families[isIPv4]; taken {
			errs = append(errs, fmt.Errorf("ServiceCIDRs has %q and %q; at most one for each IP family", other, cidr))
		}
		families[isIPv4] = cidr
	}
	if o.KubernetesServiceIP != nil && first != nil && !first.Contains(o.KubernetesServiceIP) {
		errs = append(errs, fmt.Errorf("KubernetesServiceIP %s is not in the first of ServiceCIDRs, %s", o.KubernetesServiceIP, first))
	}
	return errs
}

func (b Binding) validate() error {
	if b.Name == "" {
		return errors.New("a member has no name")
	}
	if _, known := memberRoles()[b.Role]; !known {
		return fmt.Errorf("member %q has role %q; known are %s", b.Name, b.Role, strings.Join(quotedRoles(), ", "))
	}
	switch b.Kind {
	case memberUser, memberGroup:
		return nil
	case memberServiceAccount:
		if b.Namespace == "" {
			return fmt.Errorf("member %q is a ServiceAccount and has no namespace", b.Name)
		}
		return nil
	}
	return fmt.Errorf("member %q has kind %q; known are %q, %q and %q", b.Name, b.Kind, memberUser, memberGroup, memberServiceAccount)
}

func profiles() []Profile { return []Profile{ProfileTenant, ProfileHost} }

// podSecurityLevels are from the laxest to the strictest.
func podSecurityLevels() []string {
	return []string{
		string(api.PodSecurityPrivileged),
		string(api.PodSecurityBaseline),
		string(api.PodSecurityRestricted),
	}
}

// firstServiceIP is what the API server takes for default/kubernetes by itself.
func firstServiceIP(cidr string) (net.IP, bool) {
	_, parsed, err := net.ParseCIDR(cidr)
	if err != nil {
		return nil, false
	}
	ip := slices.Clone(parsed.IP)
	ip[len(ip)-1]++
	return ip, true
}
