package tenant

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/apiserver"
	apiserverv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	apiservervalidation "k8s.io/apiserver/pkg/apis/apiserver/validation"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/tenancy"
)

// ownIssuer signs the tokens of a tenant's service accounts, so nobody else may.
const ownIssuer = "https://kubernetes.default.svc.cluster.local"

// invalid names everything in spec.virtualCluster that the control plane could
// not start with.
func invalid(t *api.Tenant) field.ErrorList {
	errs := tenancy.ValidateVirtualCluster(t)
	if t.Spec.VirtualCluster == nil || t.Spec.VirtualCluster.Authentication == nil {
		return errs
	}
	return append(errs, validateAuthentication(t.Spec.VirtualCluster.Authentication, field.NewPath("spec", "virtualCluster", "authentication"))...)
}

// validateAuthentication holds issuers to what the API server will: their
// expressions are compiled.
func validateAuthentication(spec *api.AuthenticationSpec, path *field.Path) field.ErrorList {
	content, err := json.Marshal(spec)
	if err != nil {
		return field.ErrorList{field.Invalid(path, "", err.Error())}
	}
	// The fields have the same names.
	versioned, configuration := &apiserverv1.AuthenticationConfiguration{}, &apiserver.AuthenticationConfiguration{}
	if err := json.Unmarshal(content, versioned); err != nil {
		return field.ErrorList{field.Invalid(path, "", err.Error())}
	}
	if err := apiserverv1.Convert_v1_AuthenticationConfiguration_To_apiserver_AuthenticationConfiguration(versioned, configuration, nil); err != nil {
		return field.ErrorList{field.Invalid(path, "", err.Error())}
	}
	var errs field.ErrorList
	for _, problem := range apiservervalidation.ValidateAuthenticationConfiguration(authenticationcel.NewDefaultCompiler(), configuration, []string{ownIssuer}) {
		problem.Field = path.String() + "." + problem.Field
		errs = append(errs, problem)
	}
	return errs
}
