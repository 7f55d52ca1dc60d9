package controlplane

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	genericfeatures "k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/server/egressselector"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	"github.com/sublet-dev/sublet/pkg/kubeconfig"
)

// audit has the API server write requests down. It takes nothing but files.
func audit(opts *apiserveroptions.ServerRunOptions, o Options, runDir string) error {
	if o.Audit == nil {
		return nil
	}
	policy, err := withType(o.Audit, "audit.k8s.io/v1", "Policy")
	if err != nil {
		return fmt.Errorf("audit policy: %w", err)
	}
	delete(policy, "webhook") // The rest has the names that it has there.
	if opts.Audit.PolicyFile, err = writeJSON(runDir, "audit-policy.json", policy); err != nil {
		return fmt.Errorf("audit policy: %w", err)
	}
	webhook := o.Audit.Webhook
	if webhook == nil {
		opts.Audit.LogOptions.Path = o.AuditLog
		return nil
	}
	content, err := kubeconfig.Marshal(kubeconfig.Entry{Name: "audit", Server: webhook.URL, CA: webhook.CABundle})
	if err != nil {
		return fmt.Errorf("audit webhook: %w", err)
	}
	opts.Audit.WebhookOptions.ConfigFile = filepath.Join(runDir, "audit-webhook.yaml")
	if err := os.WriteFile(opts.Audit.WebhookOptions.ConfigFile, content, 0o600); err != nil {
		return fmt.Errorf("audit webhook: %w", err)
	}
	return nil
}

// issuers has the API server believe others' tokens, beside what else it does.
func issuers(opts *apiserveroptions.ServerRunOptions, o Options, runDir string) error {
	if o.Authentication == nil {
		return nil
	}
	configuration, err := withType(o.Authentication, "apiserver.config.k8s.io/v1", "AuthenticationConfiguration")
	if err != nil {
		return fmt.Errorf("authentication: %w", err)
	}
	// They are asked about themselves by the same way as webhooks.
	if o.EgressDialer != nil && utilfeature.DefaultFeatureGate.Enabled(genericfeatures.StructuredAuthenticationConfigurationEgressSelector) {
		list, _ := configuration["jwt"].([]any)
		for _, entry := range list {
			if issuer, ok := entry.(map[string]any)["issuer"].(map[string]any); ok {
				issuer["egressSelectorType"] = egressselector.ControlPlane.String()
			}
		}
	}
	if opts.Authentication.AuthenticationConfigFile, err = writeJSON(runDir, "authentication.json", configuration); err != nil {
		return fmt.Errorf("authentication: %w", err)
	}
	return nil
}

// withType is an object as Kubernetes reads it from a file.
func withType(value any, apiVersion, kind string) (map[string]any, error) {
	content, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	object := map[string]any{}
	if err := json.Unmarshal(content, &object); err != nil {
		return nil, err
	}
	object["apiVersion"], object["kind"] = apiVersion, kind
	return object, nil
}

func writeJSON(dir, name string, object map[string]any) (string, error) {
	content, err := json.Marshal(object)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, content, 0o600)
}
