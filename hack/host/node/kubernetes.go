//go:build linux

package node

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"

	"k8s.io/component-base/cli"
	// The same metrics as in Kubernetes' own binaries.
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	proxyapp "k8s.io/kubernetes/cmd/kube-proxy/app"
	schedulerapp "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeletapp "k8s.io/kubernetes/cmd/kubelet/app"
)

const (
	kubeletConfig   = "kubelet.yaml"
	proxyConfig     = "kube-proxy.yaml"
	schedulerConfig = "kube-scheduler.yaml"
)

// Kubelet is the component that makes the node.
const Kubelet = "kubelet"

// errCommand says that one of Kubernetes' commands failed, which it has told
// about in the log itself.
var errCommand = errors.New("the command failed; see above")

func kubelet() component {
	return component{
		name:  Kubelet,
		after: []string{ContainerRuntime, ControlPlane},
		run: func(ctx context.Context, c Config) error {
			command := kubeletapp.NewKubeletCommand(ctx)
			command.SetArgs([]string{
				"--config=" + c.path(kubeletConfig),
				"--kubeconfig=" + c.path(kubeletKubeconfig),
				"--hostname-override=" + c.Name,
				"--node-ip=" + c.Address.String(),
			})
			return outcome(cli.Run(command))
		},
		ready: func(Config) func(context.Context) error { return healthy("http://127.0.0.1:10248/healthz") },
	}
}

func proxy() component {
	return component{
		name:  "kube-proxy",
		after: []string{ControlPlane},
		run: func(ctx context.Context, c Config) error {
			command := proxyapp.NewProxyCommand()
			command.SetArgs([]string{"--config=" + c.path(proxyConfig)})
			// It knows no way to end but with its process.
			ended := make(chan error, 1)
			go func() { ended <- outcome(cli.Run(command)) }()
			select {
			case <-ctx.Done():
				return nil
			case err := <-ended:
				return err
			}
		},
		ready: func(Config) func(context.Context) error { return healthy("http://127.0.0.1:10256/livez") },
	}
}

func scheduler() component {
	return component{
		name:  "kube-scheduler",
		after: []string{ControlPlane},
		run: func(_ context.Context, c Config) error {
			command := schedulerapp.NewSchedulerCommand()
			command.SetArgs([]string{"--config=" + c.path(schedulerConfig), "--bind-address=127.0.0.1"})
			return outcome(cli.Run(command))
		},
		ready: func(Config) func(context.Context) error {
			// Its certificate is one that it made for itself, just now.
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // Its certificate is its own, and this is loopback.
			return func(ctx context.Context) error { return get(ctx, client, "https://127.0.0.1:10259/healthz") }
		},
	}
}

func outcome(code int) error {
	if code != 0 {
		return errCommand
	}
	return nil
}
