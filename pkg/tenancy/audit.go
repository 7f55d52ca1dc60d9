package tenancy

import (
	"crypto/x509"
	"encoding/json"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	auditvalidation "k8s.io/apiserver/pkg/apis/audit/validation"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// validateAudit holds a policy to what the API server will, and the webhook to
// what it can use.
func validateAudit(spec *api.AuditSpec, path *field.Path) field.ErrorList {
	if spec == nil {
		return nil
	}
	var errs field.ErrorList
	policy, err := auditPolicy(spec)
	if err != nil {
		return field.ErrorList{field.Invalid(path, "", err.Error())}
	}
	for _, problem := range auditvalidation.ValidatePolicy(policy) {
		problem.Field = path.String() + "." + problem.Field
		errs = append(errs, problem)
	}
	if spec.Webhook != nil && !x509.NewCertPool().AppendCertsFromPEM(spec.Webhook.CABundle) {
		errs = append(errs, field.Invalid(path.Child("webhook", "caBundle"), "", "holds no certificate in PEM"))
	}
	return errs
}

// auditPolicy is the same in the API server's own terms; the fields have the same
// names.
func auditPolicy(spec *api.AuditSpec) (*audit.Policy, error) {
	content, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	versioned, policy := &auditv1.Policy{}, &audit.Policy{}
	if err := json.Unmarshal(content, versioned); err != nil {
		return nil, err
	}
	return policy, auditv1.Convert_v1_Policy_To_audit_Policy(versioned, policy, nil)
}
