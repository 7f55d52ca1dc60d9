package controlplane

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/pki"
)

// auditRules write down what is done to ConfigMaps, with contents for creations,
// and nothing else.
func auditRules() []api.AuditRule {
	configMaps := []api.AuditResources{{Resources: []string{"configmaps"}}}
	return []api.AuditRule{
		{Level: "None", Users: []string{"quiet"}},
		{Level: "RequestResponse", Verbs: []string{"create"}, Resources: configMaps},
		{Level: "Metadata", Verbs: []string{"delete"}, Resources: configMaps},
		{Level: "None"},
	}
}

// useConfigMaps makes requests of which some are written down.
func useConfigMaps(t *testing.T, p *plane) {
	t.Helper()
	for _, user := range []string{"ada", "quiet"} {
		// Rules are about who asks, not about whom they impersonate.
		cert, key, err := p.options.PKI.CA.Issue(pki.Leaf{CommonName: user, Organizations: []string{adminGroup}, Client: true, Lifetime: time.Hour}, time.Now())
		must(t, "issuing a certificate", err)
		config := rest.AnonymousClientConfig(p.NetworkConfig())
		config.CertData, config.KeyData = cert, key
		maps := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps("default")
		_, err = maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "of-" + user}, Data: map[string]string{"word": "contents"}}, metav1.CreateOptions{})
		must(t, "creating a ConfigMap", err)
		_, err = maps.Get(t.Context(), "of-"+user, metav1.GetOptions{})
		must(t, "reading a ConfigMap", err)
		must(t, "deleting a ConfigMap", maps.Delete(t.Context(), "of-"+user, metav1.DeleteOptions{}))
	}
}

// checkAudit wants just what auditRules say of useConfigMaps.
func checkAudit(events []auditv1.Event) error {
	var seen []string
	for _, event := range events {
		if event.ObjectRef == nil || event.ObjectRef.Namespace != "default" || strings.HasPrefix(event.User.Username, "system:") {
			continue
		}
		seen = append(seen, event.User.Username+" "+event.Verb+" "+event.ObjectRef.Name)
		contents := event.RequestObject != nil && strings.Contains(string(event.RequestObject.Raw), "contents")
		if contents != (event.Verb == "create") {
			return fmt.Errorf("%s with level %s has the contents: %v", event.Verb, event.Level, contents)
		}
	}
	slices.Sort(seen)
	if want := []string{"ada create of-ada", "ada delete of-ada"}; !slices.Equal(seen, want) {
		return fmt.Errorf("written down is %q, want %q", seen, want)
	}
	return nil
}

func TestAuditLog(t *testing.T) {
	log := filepath.Join(t.TempDir(), "audit.log")
	p := start(t, t.TempDir(), func(o *Options) {
		o.AuditLog = log
		o.Audit = &api.AuditSpec{Rules: auditRules(), OmitStages: []api.AuditStage{"RequestReceived"}, OmitManagedFields: true}
	})
	useConfigMaps(t, p)
	eventually(t, "what was done is written down", func(context.Context) error {
		file, err := os.Open(log)
		if err != nil {
			return err
		}
		defer file.Close()
		var events []auditv1.Event
		for lines := bufio.NewScanner(file); lines.Scan(); {
			var event auditv1.Event
			if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
				return err
			}
			events = append(events, event)
		}
		return checkAudit(events)
	})
}

func TestAuditWebhook(t *testing.T) {
	var mu sync.Mutex
	var events []auditv1.Event
	url, ca := serveTLS(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var list auditv1.EventList
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil {
			t.Errorf("the webhook gets no events: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		events = append(events, list.Items...)
	}))
	gate := &gatekeeper{closed: map[string]bool{}}
	p := start(t, t.TempDir(), func(o *Options) {
		o.EgressDialer = gate.dial
		o.Audit = &api.AuditSpec{
			Rules: auditRules(), OmitStages: []api.AuditStage{"RequestReceived"}, Webhook: &api.AuditWebhook{URL: url + "/audit", CABundle: ca},
		}
	})
	useConfigMaps(t, p)
	eventually(t, "what was done arrives", func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		return checkAudit(events)
	})
	if !gate.saw(strings.TrimPrefix(url, "https://")) {
		t.Error("the webhook was called past the dialer")
	}
}

// issuer is an OpenID Connect provider with one key.
type issuer struct {
	url string
	ca  []byte
	key *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, "making a key", err)
	i := &issuer{key: key}
	i.url, i.ca = serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := map[string]any{
			"issuer": i.url, "jwks_uri": i.url + "/keys", "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"ES256"},
		}
		if r.URL.Path == "/keys" {
			public, err := key.PublicKey.Bytes()
			if err != nil {
				t.Errorf("encoding a key: %v", err)
				return
			}
			answer = map[string]any{"keys": []any{map[string]any{
				"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "one",
				"x": base64.RawURLEncoding.EncodeToString(public[1:33]), "y": base64.RawURLEncoding.EncodeToString(public[33:]),
			}}}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}))
	return i
}

// token signs claims, with what every token has added.
func (i *issuer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	claims["iss"], claims["iat"], claims["exp"] = i.url, time.Now().Unix(), time.Now().Add(time.Hour).Unix()
	part := func(value any) string {
		content, err := json.Marshal(value)
		must(t, "encoding a token", err)
		return base64.RawURLEncoding.EncodeToString(content)
	}
	signed := part(map[string]any{"alg": "ES256", "kid": "one", "typ": "JWT"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	must(t, "signing a token", err)
	signature := append(r.FillBytes(make([]byte, crypto.SHA256.Size())), (&big.Int{}).Set(s).FillBytes(make([]byte, crypto.SHA256.Size()))...)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// TestIssuers: people who log in elsewhere are who their token says, within what
// the configuration lets it say.
func TestIssuers(t *testing.T) {
	provider, stranger := newIssuer(t), newIssuer(t)
	gate := &gatekeeper{closed: map[string]bool{}}
	p := start(t, t.TempDir(), func(o *Options) {
		o.EgressDialer = gate.dial
		o.Authentication = &api.AuthenticationSpec{JWT: []api.JWTAuthenticator{{
			Issuer:               api.JWTIssuer{URL: provider.url, CertificateAuthority: string(provider.ca), Audiences: []string{"acme"}},
			ClaimValidationRules: []api.ClaimValidationRule{{Expression: "claims.verified == true", Message: "log in properly"}},
			ClaimMappings: api.ClaimMappings{
				Username: api.PrefixedClaimOrExpression{Claim: "sub", Prefix: ptr.To("oidc:")},
				Groups:   &api.PrefixedClaimOrExpression{Claim: "roles", Prefix: ptr.To("oidc:")},
			},
			UserValidationRules: []api.UserValidationRule{{Expression: "user.username != 'oidc:mallory'", Message: "not she"}},
		}}}
	})
	who := func(token string) (*authenticationv1.UserInfo, error) {
		config := rest.AnonymousClientConfig(p.NetworkConfig())
		config.BearerToken = token
		review, err := kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return nil, err
		}
		return &review.Status.UserInfo, nil
	}
	claims := func(change func(map[string]any)) map[string]any {
		c := map[string]any{"sub": "ada", "aud": "acme", "verified": true, "roles": []string{"crew"}}
		change(c)
		return c
	}
	eventually(t, "a token of the issuer counts", func(context.Context) error {
		user, err := who(provider.token(t, claims(func(map[string]any) {})))
		if err != nil {
			return err
		}
		if user.Username != "oidc:ada" || !slices.Contains(user.Groups, "oidc:crew") {
			t.Errorf("the holder is %+v", user)
		}
		return nil
	})
	if !gate.saw(strings.TrimPrefix(provider.url, "https://")) {
		t.Error("the issuer was asked past the dialer")
	}
	for reason, token := range map[string]string{
		"for another audience":    provider.token(t, claims(func(c map[string]any) { c["aud"] = "other" })),
		"that a claim rule stops": provider.token(t, claims(func(c map[string]any) { c["verified"] = false })),
		"that a user rule stops":  provider.token(t, claims(func(c map[string]any) { c["sub"] = "mallory" })),
		"of another issuer":       stranger.token(t, claims(func(map[string]any) {})),
		"with another's key":      (&issuer{url: provider.url, key: stranger.key}).token(t, claims(func(map[string]any) {})),
	} {
		if user, err := who(token); !apierrors.IsUnauthorized(err) {
			t.Errorf("a token %s: %+v, %v", reason, user, err)
		}
	}
	// What the tenant's own API gives out still counts.
	eventually(t, "a service account's token counts", func(ctx context.Context) error {
		token, err := p.client.CoreV1().ServiceAccounts("default").CreateToken(ctx, "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		user, err := who(token.Status.Token)
		if err == nil && user.Username != "system:serviceaccount:default:default" {
			err = fmt.Errorf("its holder is %+v", user)
		}
		return err
	})
}
