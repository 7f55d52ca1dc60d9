package demo

import (
	"os"
	"regexp"
	"testing"

	imageutils "k8s.io/kubernetes/test/utils/image"
)

// TestImage: the local host has one version of agnhost, which Kubernetes' tests
// name; nothing is pulled.
func TestImage(t *testing.T) {
	want := imageutils.GetE2EImage(imageutils.Agnhost)
	image := regexp.MustCompile(`image: (registry\S+)`)
	for _, file := range []string{"charts/board/values.yaml", "manifests/client.yaml", "manifests/till.yaml"} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got := image.FindSubmatch(content)
		if got == nil || string(got[1]) != want {
			t.Errorf("%s has image %q, the local host has %q", file, got, want)
		}
	}
}
