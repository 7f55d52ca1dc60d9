package node

import (
	"bytes"
	"embed"
	"fmt"
	"net/netip"
	"path/filepath"
	"text/template"
)

//go:embed templates
var templates embed.FS

// values are what the templates may use.
type values struct {
	Config
	ClusterDomain, Containerd, CNIDir    string
	Registry, RegistryDir                string
	CAFile, KubeletCert, KubeletKey      string
	ProxyKubeconfig, SchedulerKubeconfig string
	DNSAddress                           netip.Addr
	PodCIDR                              netip.Prefix
}

// Render makes the configuration files of all components, by their path below
// the configuration directory.
func (c Config) Render() (map[string][]byte, error) {
	// Options and the parsed set are made anew, since a template is no constant.
	set, err := template.New("").Option("missingkey=error").ParseFS(templates, "templates/*")
	if err != nil {
		return nil, fmt.Errorf("parse the configuration templates: %w", err)
	}
	in := values{
		Config:              c,
		ClusterDomain:       ClusterDomain,
		Containerd:          containerd,
		CNIDir:              c.path(cniDir),
		Registry:            registryAddress,
		RegistryDir:         c.path(registryDir),
		CAFile:              c.path(caFile),
		KubeletCert:         c.path(kubeletCert),
		KubeletKey:          c.path(kubeletKey),
		ProxyKubeconfig:     c.path(proxyKubeconfig),
		SchedulerKubeconfig: c.path(schedulerKubeconfig),
		DNSAddress:          DNSAddress(),
		PodCIDR:             PodCIDR(),
	}
	files := map[string]string{
		containerdConfig: "containerd.toml",
		kubeletConfig:    "kubelet.yaml",
		proxyConfig:      "kube-proxy.yaml",
		filepath.Join(cniDir, "10-pods.conflist"):         "10-pods.conflist",
		filepath.Join(registryDir, "_default/hosts.toml"): "hosts.toml",
	}
	if c.First() {
		files[schedulerConfig] = "kube-scheduler.yaml"
	}
	rendered := map[string][]byte{}
	for path, name := range files {
		var out bytes.Buffer
		if err := set.ExecuteTemplate(&out, name, in); err != nil {
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
		rendered[path] = out.Bytes()
	}
	return rendered, nil
}
