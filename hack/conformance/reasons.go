package main

import (
	_ "embed"
	"fmt"
	"slices"

	"sigs.k8s.io/yaml"
)

// reason explains why a spec fails.
type reason struct {
	// Spec is the spec's whole name.
	Spec string `json:"spec"`
	// Target is the side that it explains: host, tenant, or nothing for both.
	Target string `json:"target,omitempty"`
	// Why it fails, as a sentence.
	Why string `json:"why"`
	// Takes says what it would take to pass.
	Takes string `json:"takes"`
}

// text is the reason as it stands on the page.
func (r reason) text() string {
	return fmt.Sprintf("- Why: %s\n- What it would take: %s\n", r.Why, r.Takes)
}

// parseReasons reads them, and refuses what nobody could find or understand.
func parseReasons(content []byte) ([]reason, error) {
	var file struct {
		Reasons []reason `json:"reasons"`
	}
	if err := yaml.UnmarshalStrict(content, &file); err != nil {
		return nil, fmt.Errorf("read the reasons: %w", err)
	}
	seen := map[string]bool{}
	for _, r := range file.Reasons {
		key := r.Target + "/" + r.Spec
		switch {
		case r.Spec == "" || r.Why == "" || r.Takes == "":
			return nil, fmt.Errorf("the reason for %q wants spec, why and takes", r.Spec)
		case !slices.Contains([]string{"", "host", "tenant"}, r.Target):
			return nil, fmt.Errorf("the reason for %q has the target %q: it is host, tenant or left out", r.Spec, r.Target)
		case seen[key]:
			return nil, fmt.Errorf("there are two reasons for %q", r.Spec)
		}
		seen[key] = true
	}
	return file.Reasons, nil
}

// explain finds the reason of a failure.
func explain(reasons []reason, target, name string) (reason, bool) {
	index := slices.IndexFunc(reasons, func(r reason) bool {
		return r.Spec == name && (r.Target == "" || r.Target == target)
	})
	if index < 0 {
		return reason{}, false
	}
	return reasons[index], true
}

//go:embed reasons.yaml
var reasonsFile []byte
