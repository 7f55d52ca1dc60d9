package tenant

import (
	"strings"
	"testing"
	"time"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/pki"
)

func TestInvalidAuthentication(t *testing.T) {
	authority, err := pki.NewAuthority("issuer", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	prefix := "oidc:"
	tests := map[string]struct {
		change func(*api.JWTAuthenticator)
		where  string
		says   string
	}{
		"as it should be": {change: func(*api.JWTAuthenticator) {}},
		"an expression that holds": {change: func(a *api.JWTAuthenticator) {
			a.UserValidationRules = []api.UserValidationRule{{Expression: "!user.username.startsWith('system:')"}}
		}},
		"an expression that cannot be": {change: func(a *api.JWTAuthenticator) {
			a.UserValidationRules = []api.UserValidationRule{{Expression: "user.nickname == 'x'"}}
		}, where: "authentication.jwt[0].userValidationRules[0]", says: "nickname"},
		"no prefix":                    {change: func(a *api.JWTAuthenticator) { a.ClaimMappings.Username.Prefix = nil }, where: "claimMappings.username.prefix", says: "prefix"},
		"not a certificate":            {change: func(a *api.JWTAuthenticator) { a.Issuer.CertificateAuthority = "none" }, where: "certificateAuthority", says: "certificates"},
		"the tenant's service account": {change: func(a *api.JWTAuthenticator) { a.Issuer.URL = ownIssuer }, where: "issuer.url", says: "overlap"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			jwt := api.JWTAuthenticator{
				Issuer:        api.JWTIssuer{URL: "https://login.example.com", CertificateAuthority: string(authority.CertPEM), Audiences: []string{"kubernetes"}},
				ClaimMappings: api.ClaimMappings{Username: api.PrefixedClaimOrExpression{Claim: "sub", Prefix: &prefix}},
			}
			tc.change(&jwt)
			errs := invalid(&api.Tenant{Spec: api.TenantSpec{Type: api.VirtualCluster, VirtualCluster: &api.VirtualClusterSpec{
				Authentication: &api.AuthenticationSpec{JWT: []api.JWTAuthenticator{jwt}},
			}}})
			if tc.where == "" {
				if len(errs) > 0 {
					t.Errorf("got %v", errs)
				}
				return
			}
			if len(errs) == 0 || !strings.Contains(errs[0].Field, tc.where) || !strings.Contains(errs[0].Error(), tc.says) {
				t.Errorf("got %v, want one about %q that says %q", errs, tc.where, tc.says)
			}
		})
	}
}
