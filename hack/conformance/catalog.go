package main

import (
	"fmt"

	"k8s.io/kubernetes/test/conformance/testdata"
	"sigs.k8s.io/yaml"
)

// catalog names all conformance specs of this Kubernetes version, in the order
// of Kubernetes' own list.
func catalog() ([]string, error) {
	content, err := testdata.GetConformanceTestdataFS().EmbeddedFS.ReadFile("conformance.yaml")
	if err != nil {
		return nil, fmt.Errorf("read the list of conformance specs: %w", err)
	}
	var entries []struct {
		Codename string `json:"codename"`
	}
	if err := yaml.Unmarshal(content, &entries); err != nil {
		return nil, fmt.Errorf("read the list of conformance specs: %w", err)
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Codename
	}
	return names, nil
}
