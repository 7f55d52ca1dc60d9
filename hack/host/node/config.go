package node

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// Name of the node. Each sandbox has a host name of its own, so that all local
// hosts can share this one.
const Name = "node-1"

const (
	apiPort         = 6443
	ClusterDomain   = "cluster.local"
	containerd      = "/run/containerd/containerd.sock"
	configDir       = "config"
	dnsServiceIndex = 10
)

// Config is all that differs between two local hosts, and what was found out
// about the machine. Inside the sandbox each component reads it from its file.
type Config struct {
	// Dir is the state directory.
	Dir string
	// Address is the node's, by which the machine reaches the API.
	Address netip.Addr
	// Cgroup is the parent of all pods.
	Cgroup string
	// Snapshotter of containerd, see ChooseSnapshotter.
	Snapshotter string
	// RestrictOOMScore is needed where even root must not lower the OOM score of
	// a process: every pod sandbox would fail.
	RestrictOOMScore bool
	// SandboxImage is the image of the pause container.
	SandboxImage string
}

// PodCIDR is the range of pods; more than the 250 that the node takes, as
// addresses are not reused at once.
func PodCIDR() netip.Prefix { return netip.MustParsePrefix("10.244.0.0/16") }

// ServiceCIDR is the range of Services.
func ServiceCIDR() netip.Prefix { return netip.MustParsePrefix("10.96.0.0/16") }

// DNSAddress is the tenth of the Services' range, as everywhere.
func DNSAddress() netip.Addr {
	address := ServiceCIDR().Masked().Addr()
	for range dnsServiceIndex {
		address = address.Next()
	}
	return address
}

// Server is the URL of the API, on the machine and inside.
func (c Config) Server() string {
	return fmt.Sprintf("https://%s", netip.AddrPortFrom(c.Address, apiPort))
}

// Kubeconfig is the path of the administrator's kubeconfig.
func (c Config) Kubeconfig() string { return filepath.Join(c.Dir, "kubeconfig") }

// LogDir has a log for each component.
func (c Config) LogDir() string { return filepath.Join(c.Dir, "log") }

// StateFile tells how the components do.
func (c Config) StateFile() string { return filepath.Join(c.Dir, "state.json") }

func (c Config) path(name string) string { return filepath.Join(c.Dir, configDir, name) }

// Save writes the Config for Load.
func (c Config) Save() error {
	content, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("write the node's configuration: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(c.Dir, configDir), 0o755); err != nil {
		return fmt.Errorf("write the node's configuration: %w", err)
	}
	if err := os.WriteFile(configFile(c.Dir), content, 0o644); err != nil {
		return fmt.Errorf("write the node's configuration: %w", err)
	}
	return nil
}

// Load reads what Save wrote.
func Load(dir string) (Config, error) {
	var c Config
	content, err := os.ReadFile(configFile(dir))
	if err != nil {
		return c, fmt.Errorf("read the node's configuration: %w", err)
	}
	if err := json.Unmarshal(content, &c); err != nil {
		return c, fmt.Errorf("read the node's configuration %s: %w", configFile(dir), err)
	}
	return c, nil
}

func configFile(dir string) string { return filepath.Join(dir, "node.json") }
