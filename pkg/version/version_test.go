package version

import (
	"os"
	"strings"
	"testing"
)

// TestKubernetes holds the constant to the version that is built in.
func TestKubernetes(t *testing.T) {
	content, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), "k8s.io/kubernetes "+Kubernetes+"\n") {
		t.Errorf("go.mod requires another Kubernetes than %s", Kubernetes)
	}
}

func TestGet(t *testing.T) {
	info := Get()
	if info.Version == "" || info.Kubernetes != Kubernetes || !strings.HasPrefix(info.Go, "go") {
		t.Errorf("Get() = %+v", info)
	}
}
