package tenant

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/apply"
	"github.com/sublet-dev/sublet/pkg/isolation"
	"github.com/sublet-dev/sublet/pkg/kubeconfig"
	"github.com/sublet-dev/sublet/pkg/pki"
	"github.com/sublet-dev/sublet/pkg/tenancy"
	"github.com/sublet-dev/sublet/pkg/virtualcluster"
)

// clientLifetime of the certificates in kubeconfigs. They cannot be revoked, so
// it is short; they are renewed at two thirds of it.
const clientLifetime = 30 * 24 * time.Hour

// groundworkPhase makes all that a control plane needs before its pod: keys,
// kubeconfigs, Services, ServiceAccounts, the syncer's rights, and the
// configuration. It comes before the fence, because an object that is subject
// to a quota cannot be made until the quota controller has counted once.
type groundworkPhase struct {
	client        client.Client
	live          client.Reader
	applier       *apply.Applier
	serviceRanges func(context.Context) ([]string, error)
	hostAPI       func(context.Context) ([]string, error)
	now           func() time.Time
}

func (groundworkPhase) Condition() string { return api.ConditionControlPlaneReady }

func (p groundworkPhase) Run(ctx context.Context, s *state) error {
	service, dns := virtualcluster.APIService(s.effective), virtualcluster.DNSService(s.effective)
	objects := []client.Object{service, dns}
	for _, object := range virtualcluster.ServiceAccounts(s.effective) {
		objects = append(objects, object)
	}
	for _, object := range virtualcluster.Bindings(s.effective, isolation.Owner(s.effective.Name, s.effective.UID)) {
		objects = append(objects, object)
	}
	// None of these waits for another.
	var group sync.WaitGroup
	var applyErr, keysErr, rangeErr, hostErr error
	var ranges, hostAPI []string
	var keys *dueKeys
	group.Go(func() { applyErr = p.applier.All(ctx, objects...) })
	group.Go(func() { keys, keysErr = p.keys(ctx, s) })
	group.Go(func() { ranges, rangeErr = p.serviceRanges(ctx) })
	group.Go(func() { hostAPI, hostErr = p.hostAPI(ctx) })
	group.Wait()
	var b *blocked
	if errors.As(keysErr, &b) {
		s.problem, keysErr = b, nil
	}
	if err := errors.Join(applyErr, keysErr, rangeErr, hostErr); err != nil {
		return err
	}

	secrets, err := p.kubeconfigSecrets(s, keys)
	if err != nil {
		return err
	}
	s.config = virtualcluster.Config(s.effective, virtualcluster.Addresses{
		ServiceCIDRs: ranges,
		APIServiceIP: service.Spec.ClusterIP,
		DNSServiceIP: dns.Spec.ClusterIP,
		HostAPI:      hostAPI,
	})
	if len(invalid(s.tenant)) > 0 {
		// The pod keeps what it has until the spec is right; see controlPlanePhase.
		return p.applier.All(ctx, secrets...)
	}
	configMap, err := virtualcluster.ConfigMap(s.effective, s.config)
	if err != nil {
		return err
	}
	return p.applier.All(ctx, append(secrets, configMap)...)
}

// dueKeys are the kubeconfigs to be issued, and with what; nil for none.
type dueKeys struct {
	bundle *pki.Bundle
	roles  []api.Role
}

// groups are those inside the virtual cluster, by role.
func groups() map[api.Role]string {
	return map[api.Role]string{
		api.RoleAdmin: api.GroupAdmin,
		api.RoleEdit:  api.GroupEdit,
		api.RoleView:  api.GroupView,
	}
}

// keys makes the authorities once, and tells which kubeconfigs are missing or
// due.
func (p groundworkPhase) keys(ctx context.Context, s *state) (*dueKeys, error) {
	due, next, err := p.due(ctx, s)
	if err != nil {
		return nil, err
	}
	known := &corev1.Secret{}
	err = p.client.Get(ctx, client.ObjectKey{Namespace: s.effective.Namespace, Name: api.PKISecretName}, known)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read the keys of tenant %q: %w", s.effective.Name, err)
	}
	if err == nil && len(due) == 0 {
		s.wakeIn(next)
		return nil, nil
	}
	bundle, err := p.bundle(ctx, s)
	if err != nil {
		return nil, err
	}
	s.wakeIn(clientLifetime / 2)
	return &dueKeys{bundle, due}, nil
}

func (p groundworkPhase) kubeconfigSecrets(s *state, keys *dueKeys) ([]client.Object, error) {
	if keys == nil {
		return nil, nil
	}
	secrets := make([]client.Object, 0, len(keys.roles))
	for _, role := range keys.roles {
		secret, err := p.kubeconfigSecret(s.effective, keys.bundle, role)
		if err != nil {
			return nil, err
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
}

// due are the roles whose kubeconfig is missing or must be renewed; next is the
// time until another is.
func (p groundworkPhase) due(ctx context.Context, s *state) (due []api.Role, next time.Duration, err error) {
	next = clientLifetime
	for _, role := range slices.Sorted(maps.Keys(groups())) {
		secret := &corev1.Secret{}
		err := p.client.Get(ctx, client.ObjectKey{Namespace: s.effective.Namespace, Name: virtualcluster.KubeconfigSecretName(role)}, secret)
		if client.IgnoreNotFound(err) != nil {
			return nil, 0, fmt.Errorf("read the kubeconfig of tenant %q: %w", s.effective.Name, err)
		}
		renewAt, parseErr := time.Parse(time.RFC3339, secret.Annotations[api.AnnotationRenewAt])
		left := renewAt.Sub(p.now())
		if err != nil || parseErr != nil || left <= 0 {
			due = append(due, role)
			continue
		}
		next = min(next, left)
	}
	return due, next, nil
}

// bundle reads the keys of the tenant, or makes them if it never had any.
func (p groundworkPhase) bundle(ctx context.Context, s *state) (*pki.Bundle, error) {
	name := client.ObjectKey{Namespace: s.effective.Namespace, Name: api.PKISecretName}
	if s.newNamespace {
		if bundle, err := p.newBundle(ctx, s); bundle != nil || err != nil {
			return bundle, err
		}
	}
	stored := &corev1.Secret{}
	err := p.live.Get(ctx, name, stored)
	if apierrors.IsNotFound(err) {
		if s.statefulSet != nil {
			return nil, &blocked{reasonKeysLost, fmt.Sprintf(
				"Secret %q in namespace %q is gone, and with it the keys of this control plane: restore it from a backup, or delete the tenant and create it anew",
				name.Name, name.Namespace)}
		}
		if bundle, err := p.newBundle(ctx, s); bundle != nil || err != nil {
			return bundle, err
		}
		err = p.live.Get(ctx, name, stored)
	}
	if err != nil {
		return nil, fmt.Errorf("read the keys of tenant %q: %w", s.effective.Name, err)
	}
	bundle, err := pki.BundleFromData(stored.Data)
	if err != nil {
		return nil, &blocked{reasonKeysLost, fmt.Sprintf(
			"Secret %q in namespace %q does not hold the keys of a control plane (%s): restore it from a backup, or delete the tenant and create it anew",
			name.Name, name.Namespace, err)}
	}
	return bundle, nil
}

// newBundle makes keys; none when there are some already. They are created,
// never applied: to overwrite them is to lose the tenant.
func (p groundworkPhase) newBundle(ctx context.Context, s *state) (*pki.Bundle, error) {
	made, err := pki.NewBundle(s.effective.Name, p.now())
	if err != nil {
		return nil, err
	}
	err = p.client.Create(ctx, virtualcluster.PKISecret(s.effective, made.SecretData()), client.FieldOwner(api.ManagerName))
	switch {
	case apierrors.IsAlreadyExists(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("create the keys of tenant %q: %w", s.effective.Name, err)
	}
	return made, nil
}

func (p groundworkPhase) kubeconfigSecret(e tenancy.Effective, bundle *pki.Bundle, role api.Role) (*corev1.Secret, error) {
	cert, key, err := bundle.CA.Issue(pki.Leaf{
		CommonName:    "sublet:member:" + string(role),
		Organizations: []string{groups()[role]},
		Client:        true,
		Lifetime:      clientLifetime,
	}, p.now())
	if err != nil {
		return nil, fmt.Errorf("issue the certificate of role %q in tenant %q: %w", role, e.Name, err)
	}
	renewAt, err := pki.RenewalTime(cert)
	if err != nil {
		return nil, err
	}
	content, err := kubeconfig.Marshal(kubeconfig.Entry{
		Name:       e.Name,
		Server:     virtualcluster.Server(e.Namespace),
		CA:         bundle.CA.CertPEM,
		ClientCert: cert,
		ClientKey:  key,
	})
	if err != nil {
		return nil, err
	}
	return virtualcluster.KubeconfigSecret(e, role, content, renewAt), nil
}
