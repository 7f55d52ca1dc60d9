package main

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestModuleFile(t *testing.T) {
	const upstream = `{"Go": "1.24.0", "Godebug": [{"Key": "default", "Value": "go1.24"}], "Replace": [
		{"Old": {"Path": "k8s.io/api"}, "New": {"Path": "./staging/src/k8s.io/api"}},
		{"Old": {"Path": "example.com/fork"}, "New": {"Path": "example.com/other"}}
	]}`
	var parsed upstreamModule
	if err := json.Unmarshal([]byte(upstream), &parsed); err != nil {
		t.Fatal(err)
	}
	want := `module skew

go 1.24.0

godebug default=go1.24

require k8s.io/kubernetes v1.33.13

replace k8s.io/api => k8s.io/api v0.33.13
`
	if diff := cmp.Diff(want, moduleFile("v1.33.13", parsed)); diff != "" {
		t.Errorf("go.mod (-want +got):\n%s", diff)
	}
}
