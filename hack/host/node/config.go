package node

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

const (
	apiPort         = 6443
	ClusterDomain   = "cluster.local"
	containerd      = "/run/containerd/containerd.sock"
	registryAddress = "127.0.0.1:10245"
	configDir       = "config"
	dnsServiceIndex = 10
)

// MaxNodes is how many nodes there are ranges for.
const MaxNodes = 4

// Name of a node, counted from 0. Each sandbox has host names of its own, so that
// all local hosts can share these.
func Name(index int) string { return fmt.Sprintf("node-%d", index+1) }

// Config is all that differs between two nodes, be they of one local host or of
// two, and what was found out about the machine. Inside the sandbox each component
// reads it from its file.
type Config struct {
	Name string
	// Root is the state directory of the local host, Dir that of the node. They are
	// the same for the first node, which has the control plane.
	Root, Dir string
	// Further are the names of the other nodes, for the first.
	Further []string
	// Address is the node's, API that of the first node, by which the machine
	// reaches the API.
	Address, API netip.Addr
	// Pods is the range of the node's pods.
	Pods netip.Prefix
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

// First says whether it is the node with the control plane.
func (c Config) First() bool { return c.Root == c.Dir }

// Label tells people of which node a component is.
func (c Config) Label(component string) string {
	if c.First() {
		return component
	}
	return c.Name + "/" + component
}

// PodCIDR is the range of all pods.
func PodCIDR() netip.Prefix { return netip.MustParsePrefix("10.244.0.0/16") }

// NodePodCIDR is the range of the pods of a node, counted from 0: far more than
// the 500 that it takes, as addresses are not reused at once.
func NodePodCIDR(index int) netip.Prefix {
	all := PodCIDR().Addr().As4()
	all[2] = byte(index * 256 / MaxNodes)
	return netip.PrefixFrom(netip.AddrFrom4(all), 18)
}

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
	return fmt.Sprintf("https://%s", netip.AddrPortFrom(c.API, apiPort))
}

// Kubeconfig is the path of the administrator's kubeconfig.
func (c Config) Kubeconfig() string { return filepath.Join(c.Root, "kubeconfig") }

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

// LoadAll reads the Configs of all nodes of a local host, the first node first.
func LoadAll(root string) ([]Config, error) {
	first, err := Load(root)
	if err != nil {
		return nil, err
	}
	all := []Config{first}
	for _, name := range first.Further {
		further, err := Load(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		all = append(all, further)
	}
	return all, nil
}

func configFile(dir string) string { return filepath.Join(dir, "node.json") }
