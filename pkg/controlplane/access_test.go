package controlplane

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/sublet-dev/sublet/pkg/pki"
)

// TestAccess: who one is, what one may do and how that is found out, in all the
// ways in which Kubernetes has it.
func TestAccess(t *testing.T) {
	p := start(t, t.TempDir(), nil)
	t.Run("certificate", func(t *testing.T) { testClientCertificate(t, p) })
	t.Run("certificate for masters", func(t *testing.T) { testMastersCertificate(t, p) })
	t.Run("signer of one's own", func(t *testing.T) { testCustomSigner(t, p) })
	t.Run("token", func(t *testing.T) { testBoundToken(t, p) })
	t.Run("reviews", func(t *testing.T) { testReviews(t, p) })
	t.Run("impersonation", func(t *testing.T) { testImpersonation(t, p) })
	t.Run("flow control", func(t *testing.T) { testFlowControl(t, p) })
	t.Run("leases", func(t *testing.T) { testLeases(t, p) })
}

// as is the API for somebody else.
func (p *plane) as(user string, groups ...string) kubernetes.Interface {
	config := p.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	return kubernetes.NewForConfigOrDie(config)
}

func (p *plane) bindClusterRole(t *testing.T, name, user string, rules ...rbacv1.PolicyRule) {
	t.Helper()
	_, err := p.client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, metav1.CreateOptions{})
	must(t, "creating a role", err)
	_, err = p.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
	}, metav1.CreateOptions{})
	must(t, "binding a role", err)
}

// newRequest makes a key and asks for a certificate for it.
func newRequest(t *testing.T, user string, groups ...string) (request, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, "making a key", err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: user, Organization: groups}}, private)
	must(t, "making a request", err)
	encoded, err := x509.MarshalECPrivateKey(private)
	must(t, "encoding a key", err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded})
}

func newCSR(name, signer string, request []byte) *certificatesv1.CertificateSigningRequest {
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: request, SignerName: signer, ExpirationSeconds: ptr.To[int32](3600),
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature},
		},
	}
}

func (p *plane) approve(t *testing.T, name string) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	requests := p.client.CertificatesV1().CertificateSigningRequests()
	csr, err := requests.Get(t.Context(), name, metav1.GetOptions{})
	must(t, "reading a request", err)
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test",
	})
	csr, err = requests.UpdateApproval(t.Context(), name, csr, metav1.UpdateOptions{})
	must(t, "approving a request", err)
	return csr
}

func testClientCertificate(t *testing.T, p *plane) {
	ctx := t.Context()
	requests := p.client.CertificatesV1().CertificateSigningRequests()
	request, key := newRequest(t, "eve", "crew")
	_, err := requests.Create(ctx, newCSR("eve", certificatesv1.KubeAPIServerClientSignerName, request), metav1.CreateOptions{})
	must(t, "asking for a certificate", err)
	time.Sleep(200 * time.Millisecond)
	csr, err := requests.Get(ctx, "eve", metav1.GetOptions{})
	must(t, "reading a request", err)
	if len(csr.Status.Certificate) > 0 {
		t.Fatal("there is a certificate that nobody has approved")
	}
	p.approve(t, "eve")
	eventually(t, "a signed certificate", func(ctx context.Context) error {
		csr, err = requests.Get(ctx, "eve", metav1.GetOptions{})
		if err == nil && len(csr.Status.Certificate) == 0 {
			err = fmt.Errorf("conditions %v", csr.Status.Conditions)
		}
		return err
	})
	config := rest.AnonymousClientConfig(p.NetworkConfig())
	config.CertData, config.KeyData = csr.Status.Certificate, key
	config.BearerToken = ""
	eve := kubernetes.NewForConfigOrDie(config)
	review, err := eve.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	must(t, "asking who one is", err)
	if user := review.Status.UserInfo; user.Username != "eve" || !slices.Contains(user.Groups, "crew") {
		t.Errorf("the holder of the certificate is %+v", user)
	}
	if _, err := eve.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("without a role she lists nodes: %v", err)
	}
	p.bindClusterRole(t, "eve", "eve", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"list"}})
	eventually(t, "a role counts", func(ctx context.Context) error {
		_, err := eve.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		return err
	})
}

// testMastersCertificate: nobody gets the rights of system:masters by a request.
func testMastersCertificate(t *testing.T, p *plane) {
	request, _ := newRequest(t, "mallory", adminGroup)
	_, err := p.client.CertificatesV1().CertificateSigningRequests().Create(t.Context(),
		newCSR("mallory", certificatesv1.KubeAPIServerClientSignerName, request), metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("asking for a certificate of %s: %v", adminGroup, err)
	}
}

func testCustomSigner(t *testing.T, p *plane) {
	ctx := t.Context()
	const signer = "example.com/workloads"
	rules := func(signers ...string) []rbacv1.PolicyRule {
		return []rbacv1.PolicyRule{
			{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"get", "list", "watch"}},
			{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests/status"}, Verbs: []string{"update"}},
			{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"signers"}, ResourceNames: signers, Verbs: []string{"sign"}},
		}
	}
	p.bindClusterRole(t, "signer", "signer", rules(signer)...)
	p.bindClusterRole(t, "other-signer", "other-signer", rules("example.com/other")...)
	request, _ := newRequest(t, "web")
	requests := p.client.CertificatesV1().CertificateSigningRequests()
	_, err := requests.Create(ctx, newCSR("web", signer, request), metav1.CreateOptions{})
	must(t, "asking for a certificate", err)
	csr := p.approve(t, "web")

	authority, err := pki.NewAuthority("workloads", time.Now())
	must(t, "making an authority", err)
	cert, _, err := authority.Issue(pki.Leaf{CommonName: "web", Client: true, Lifetime: time.Hour}, time.Now())
	must(t, "issuing a certificate", err)
	csr.Status.Certificate = cert
	eventually(t, "another signer is refused", func(ctx context.Context) error {
		_, err := p.as("other-signer").CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, csr.DeepCopy(), metav1.UpdateOptions{})
		if apierrors.IsForbidden(err) {
			return nil
		}
		return fmt.Errorf("answered %v", err)
	})
	eventually(t, "the signer signs", func(ctx context.Context) error {
		_, err := p.as("signer").CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, csr.DeepCopy(), metav1.UpdateOptions{})
		return err
	})
	signed, err := requests.Get(ctx, "web", metav1.GetOptions{})
	must(t, "reading a request", err)
	if string(signed.Status.Certificate) != string(cert) {
		t.Errorf("the certificate is %q, want that of the signer", signed.Status.Certificate)
	}
}

func testBoundToken(t *testing.T, p *plane) {
	ctx := t.Context()
	eventually(t, "the default service account", func(ctx context.Context) error {
		_, err := p.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	secret, err := p.client.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bound"}}, metav1.CreateOptions{})
	must(t, "creating a secret", err)
	token, err := p.client.CoreV1().ServiceAccounts("default").CreateToken(ctx, "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: []string{"vault"}, ExpirationSeconds: ptr.To[int64](600),
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: secret.Name, UID: secret.UID},
	}}, metav1.CreateOptions{})
	must(t, "asking for a token", err)
	if left := time.Until(token.Status.ExpirationTimestamp.Time); left > 11*time.Minute {
		t.Errorf("the token lives %s", left)
	}
	review := func(ctx context.Context, audiences ...string) *authenticationv1.TokenReviewStatus {
		r, err := p.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: token.Status.Token, Audiences: audiences},
		}, metav1.CreateOptions{})
		must(t, "asking about a token", err)
		return &r.Status
	}
	if status := review(ctx, "vault", "other"); !status.Authenticated || status.User.Username != "system:serviceaccount:default:default" || !slices.Equal(status.Audiences, []string{"vault"}) {
		t.Errorf("for its audience the token is %+v", status)
	}
	if status := review(ctx); status.Authenticated {
		t.Errorf("for the API server, which is not its audience, it is %+v", status)
	}
	must(t, "deleting a secret", p.client.CoreV1().Secrets("default").Delete(ctx, "bound", metav1.DeleteOptions{}))
	eventually(t, "the token ends with what it is bound to", func(ctx context.Context) error {
		if status := review(ctx, "vault"); status.Authenticated {
			return fmt.Errorf("%+v", status)
		}
		return nil
	})
}

func testReviews(t *testing.T, p *plane) {
	ctx := t.Context()
	p.bindClusterRole(t, "reader", "reader", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}})
	reader := p.as("reader")
	attributes := func(verb string) *authorizationv1.ResourceAttributes {
		return &authorizationv1.ResourceAttributes{Namespace: "default", Resource: "pods", Verb: verb}
	}
	allowed := map[string]func(ctx context.Context, verb string) (bool, error){
		"SubjectAccessReview": func(ctx context.Context, verb string) (bool, error) {
			r, err := p.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
				Spec: authorizationv1.SubjectAccessReviewSpec{User: "reader", ResourceAttributes: attributes(verb)},
			}, metav1.CreateOptions{})
			return err == nil && r.Status.Allowed, err
		},
		"LocalSubjectAccessReview": func(ctx context.Context, verb string) (bool, error) {
			r, err := p.client.AuthorizationV1().LocalSubjectAccessReviews("default").Create(ctx, &authorizationv1.LocalSubjectAccessReview{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default"},
				Spec:       authorizationv1.SubjectAccessReviewSpec{User: "reader", ResourceAttributes: attributes(verb)},
			}, metav1.CreateOptions{})
			return err == nil && r.Status.Allowed, err
		},
		"SelfSubjectAccessReview": func(ctx context.Context, verb string) (bool, error) {
			r, err := reader.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: attributes(verb)},
			}, metav1.CreateOptions{})
			return err == nil && r.Status.Allowed, err
		},
		"SelfSubjectRulesReview": func(ctx context.Context, verb string) (bool, error) {
			r, err := reader.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx, &authorizationv1.SelfSubjectRulesReview{
				Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "default"},
			}, metav1.CreateOptions{})
			if err != nil {
				return false, err
			}
			return slices.ContainsFunc(r.Status.ResourceRules, func(rule authorizationv1.ResourceRule) bool {
				return slices.Contains(rule.Resources, "pods") && slices.Contains(rule.Verbs, verb)
			}), nil
		},
	}
	for name, ask := range allowed {
		eventually(t, name, func(ctx context.Context) error {
			ok, err := ask(ctx, "list")
			if err == nil && !ok {
				err = fmt.Errorf("it does not allow what a role allows")
			}
			return err
		})
		if ok, err := ask(ctx, "delete"); ok || err != nil {
			t.Errorf("%s about what no role allows: %v, %v", name, ok, err)
		}
	}
}

func testImpersonation(t *testing.T, p *plane) {
	ctx := t.Context()
	config := p.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: "ada", UID: "42", Groups: []string{"crew"}, Extra: map[string][]string{"scopes": {"a", "b"}}}
	review, err := kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	must(t, "asking who one is", err)
	if user := review.Status.UserInfo; user.Username != "ada" || user.UID != "42" || !slices.Contains(user.Groups, "crew") || !slices.Equal(user.Extra["scopes"], authenticationv1.ExtraValue{"a", "b"}) {
		t.Errorf("impersonated, one is %+v", user)
	}

	// Somebody without the right may not; with it, only whom it names.
	token, err := p.client.CoreV1().ServiceAccounts("default").CreateToken(ctx, "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, "asking for a token", err)
	as := func(user string) error {
		config := rest.AnonymousClientConfig(p.NetworkConfig())
		config.BearerToken = token.Status.Token
		config.Impersonate.UserName = user
		_, err := kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		return err
	}
	if err := as("ada"); !apierrors.IsForbidden(err) {
		t.Errorf("impersonating without a right: %v", err)
	}
	p.bindClusterRole(t, "impersonator", "system:serviceaccount:default:default",
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"users"}, ResourceNames: []string{"ada"}, Verbs: []string{"impersonate"}})
	eventually(t, "impersonating whom a role names", func(context.Context) error { return as("ada") })
	if err := as("eve"); !apierrors.IsForbidden(err) {
		t.Errorf("impersonating somebody else: %v", err)
	}
}

// testFlowControl: a FlowSchema of the tenant's decides over its requests.
func testFlowControl(t *testing.T, p *plane) {
	ctx := t.Context()
	flow := p.client.FlowcontrolV1()
	_, err := flow.PriorityLevelConfigurations().Create(ctx, &flowcontrolv1.PriorityLevelConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "slow"},
		Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
			Type: flowcontrolv1.PriorityLevelEnablementLimited,
			Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
				NominalConcurrencyShares: ptr.To[int32](1),
				LimitResponse:            flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject},
			},
		},
	}, metav1.CreateOptions{})
	must(t, "creating a priority level", err)
	schema, err := flow.FlowSchemas().Create(ctx, &flowcontrolv1.FlowSchema{
		ObjectMeta: metav1.ObjectMeta{Name: "slow"},
		Spec: flowcontrolv1.FlowSchemaSpec{
			MatchingPrecedence:         500,
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "slow"},
			Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
				Subjects:      []flowcontrolv1.Subject{{Kind: flowcontrolv1.SubjectKindUser, User: &flowcontrolv1.UserSubject{Name: "batch"}}},
				ResourceRules: []flowcontrolv1.ResourcePolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}, ClusterScope: true, Namespaces: []string{"*"}}},
			}},
		},
	}, metav1.CreateOptions{})
	must(t, "creating a flow schema", err)
	seen := func(user string) (string, error) {
		config := p.Config()
		config.Impersonate.UserName = user
		var header string
		config.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				response, err := next.RoundTrip(r)
				if err == nil {
					header = response.Header.Get(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID)
				}
				return response, err
			})
		})
		_, err := kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		return header, err
	}
	eventually(t, "the schema matches", func(context.Context) error {
		uid, err := seen("batch")
		if err == nil && uid != string(schema.UID) {
			err = fmt.Errorf("the schema of the request is %q, want %q", uid, schema.UID)
		}
		return err
	})
	if uid, err := seen("ada"); err != nil || uid == "" || uid == string(schema.UID) {
		t.Errorf("the schema of another user's request is %q, %v", uid, err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// testLeases: those of the tenant's programs; the control plane itself has none.
func testLeases(t *testing.T, p *plane) {
	ctx := t.Context()
	leases := p.client.CoordinationV1().Leases("default")
	lease, err := leases.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "leader"},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: ptr.To("one"), LeaseDurationSeconds: ptr.To[int32](15)},
	}, metav1.CreateOptions{})
	must(t, "creating a lease", err)
	lease.Spec.HolderIdentity = ptr.To("two")
	_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	must(t, "taking a lease over", err)
	if _, err := leases.Update(ctx, lease, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("whoever is late takes it, too: %v", err)
	}
	own, err := p.client.CoordinationV1().Leases("kube-system").List(ctx, metav1.ListOptions{})
	must(t, "listing leases", err)
	if len(own.Items) > 0 {
		t.Errorf("the control plane writes %d leases", len(own.Items))
	}
}
