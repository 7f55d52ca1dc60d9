package demo

import (
	"os"
	"testing"

	imageutils "k8s.io/kubernetes/test/utils/image"
	"sigs.k8s.io/yaml"
)

// TestImage: the local host has one version of agnhost, which Kubernetes' tests
// name; nothing is pulled.
func TestImage(t *testing.T) {
	content, err := os.ReadFile("charts/board/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values struct{ Image string }
	if err := yaml.Unmarshal(content, &values); err != nil {
		t.Fatal(err)
	}
	if want := imageutils.GetE2EImage(imageutils.Agnhost); values.Image != want {
		t.Errorf("charts/board/values.yaml has image %q, the local host has %q", values.Image, want)
	}
}
