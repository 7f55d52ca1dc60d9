package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
	"github.com/sublet-dev/sublet/pkg/version"
)

// versionOptions are the flags of version.
type versionOptions struct {
	*app
	output    output
	client    bool
	namespace string
}

// versions is what the command prints.
type versions struct {
	Client version.Info    `json:"client"`
	Server *serverVersions `json:"server,omitempty"`
	// Problem says why there is nothing about the server.
	Problem string `json:"problem,omitempty"`
}

type serverVersions struct {
	// Manager is the image of the manager in the host cluster; empty when Sublet
	// is not installed there.
	Manager string `json:"manager,omitempty"`
	// Host is the Kubernetes version of the host cluster.
	Host string `json:"host"`
}

func newVersionCommand(a *app) *cobra.Command {
	o := &versionOptions{app: a}
	cmd := &cobra.Command{
		Use:               "version",
		Short:             "Tell the versions here and in the host cluster",
		Example:           examples(a.name, "%[1]s version\n%[1]s version --client -o json"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			return o.run(ctx)
		}),
	}
	flags := cmd.Flags()
	o.output.addFlag(cmd, flags, "json", "yaml")
	flags.BoolVar(&o.client, "client", false, "do not ask the host")
	flags.StringVar(&o.namespace, "namespace", api.SystemNamespace, "namespace of the manager")
	return cmd
}

func (o *versionOptions) run(ctx context.Context) error {
	if err := o.output.validate(); err != nil {
		return err
	}
	all := versions{Client: version.Get()}
	var problem error
	if !o.client {
		ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		all.Server, problem = o.server(ctx)
		if problem != nil {
			problem = o.host.explain(problem, o.name)
			all.Problem = problem.Error()
		}
	}
	if err := o.write(all); err != nil {
		return err
	}
	// The client's version is printed all the same: bug reports need it.
	return problem
}

func (o *versionOptions) write(all versions) error {
	switch o.output.format {
	case "json":
		return o.printJSON(all)
	case "yaml":
		content, err := yaml.Marshal(all)
		if err != nil {
			return err
		}
		_, err = o.Stdout.Write(content)
		return err
	}
	o.printf("Client:     %s (Kubernetes %s, %s, %s)\n", all.Client.Version, all.Client.Kubernetes, all.Client.Go, all.Client.Platform)
	if all.Server != nil {
		o.printf("Manager:    %s\n", orElse(all.Server.Manager, "not installed"))
		o.printf("Host:       Kubernetes %s\n", all.Server.Host)
	}
	return nil
}

func (o *versionOptions) server(ctx context.Context) (*serverVersions, error) {
	clients, err := o.host.clients()
	if err != nil {
		return nil, err
	}
	info, err := clients.kube.Discovery().ServerVersion()
	if err != nil {
		return nil, err
	}
	server := &serverVersions{Host: info.GitVersion}
	// Whoever may not look into the manager's namespace still gets the rest.
	deployments, err := clients.kube.AppsV1().Deployments(o.namespace).List(ctx, metav1.ListOptions{})
	if err == nil {
		server.Manager = managerImage(deployments.Items)
	}
	return server, nil
}

// managerImage finds the manager among the Deployments of its namespace.
func managerImage(deployments []appsv1.Deployment) string {
	for _, deployment := range deployments {
		for _, container := range deployment.Spec.Template.Spec.Containers {
			if contains(append(container.Command, container.Args...), "manager") {
				return container.Image
			}
		}
	}
	return ""
}
