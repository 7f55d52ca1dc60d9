package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/restmapper"

	"github.com/sublet-dev/sublet/pkg/migrate"
)

// importOptions are the flags of import.
type importOptions struct {
	*app
	peer   migrate.Peer
	files  []string
	output output
}

func newImportCommand(a *app) *cobra.Command {
	o := &importOptions{app: a, output: output{format: "yaml"}}
	var names []string
	for _, peer := range migrate.Peers() {
		names = append(names, peer.Name)
	}
	cmd := &cobra.Command{
		Use:   "import " + strings.Join(names, "|") + " [-f FILE]...",
		Short: "Turn what kiosk, HNC or Capsule have into Tenants and Templates",
		Long: `Read the objects of kiosk, of the Hierarchical Namespace Controller or of Capsule,
from files or from the cluster, and print the Tenants and Templates that they
become. Nothing is made and nothing changed.

What has no counterpart is named on standard error, object by object, and in the
YAML as comments above what it is about.`,
		Example: examples(a.name, `
# What is in the cluster, to be looked through and then made.
%[1]s import capsule > tenants.yaml
%[1]s create -f tenants.yaml

# What is in files, in folders, or comes from elsewhere.
%[1]s import hnc -f hierarchy.yaml -f namespaces/
kubectl get accounts,accountquotas -o yaml | %[1]s import kiosk -f -`),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("say what to import from: %s", quoteList(names, "or"))
			}
			for _, peer := range migrate.Peers() {
				if peer.Name == args[0] {
					o.peer = peer
					return nil
				}
			}
			return fmt.Errorf("unknown %q: this imports from %s", args[0], quoteList(names, "or"))
		},
		ValidArgs: names,
		RunE:      a.run(func(ctx context.Context, _ []string) error { return o.run(ctx) }),
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&o.files, "filename", "f", nil, "file, or folder of .yaml, .yml and .json files, with objects; - for standard input; may be repeated (default: ask the cluster)")
	o.output.addFlag(cmd, flags, "yaml", "json")
	return cmd
}

func (o *importOptions) run(ctx context.Context) error {
	if err := o.output.validate(); err != nil {
		return err
	}
	read, where := o.readCluster, "the cluster"
	if len(o.files) > 0 {
		read, where = o.readFiles, quoteList(o.files, "and")
	}
	objects, err := read(ctx)
	if err != nil {
		return err
	}
	result, err := o.peer.Convert(objects)
	if err != nil {
		if len(o.files) > 0 {
			err = &usageError{err: err}
		}
		return hint(err, "Nothing was printed. Mend that object, or leave it out by reading files with -f.")
	}
	for _, note := range result.Notes {
		o.warnf("note: %s.\n", oneLine(note.String()))
	}
	if len(result.Tenants)+len(result.Templates) == 0 {
		return hint(fmt.Errorf("nothing in %s becomes a tenant or a template", where), "%s's objects are of the groups %s.", o.peer.Title, quoteList(o.peer.Groups, "and"))
	}
	write := result.YAML
	if o.output.format == "json" {
		write = result.JSON
	}
	content, err := write()
	if err != nil {
		return err
	}
	o.printf("%s", content)
	o.warnf("%s and %s of %s, with %s.\n", number(len(result.Tenants), "tenant"), number(len(result.Templates), "template"), o.peer.Title, number(len(result.Notes), "note"))
	return nil
}

func number(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// readFiles reads files and folders, each once.
func (o *importOptions) readFiles(context.Context) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	for _, name := range o.files {
		files, err := filesOf(name)
		if err != nil {
			return nil, usagef("reading %s: %v", name, err)
		}
		for _, file := range files {
			var content []byte
			if file == "-" {
				content, err = io.ReadAll(o.Stdin)
			} else {
				content, err = os.ReadFile(file)
			}
			if err != nil {
				return nil, usagef("reading %s: %v", file, err)
			}
			found, err := migrate.Read(content)
			if err != nil {
				return nil, usagef("%s: %v", file, err)
			}
			objects = append(objects, found...)
		}
	}
	return objects, nil
}

// filesOf are the files with objects in a folder, or the one file.
func filesOf(name string) ([]string, error) {
	if name == "-" {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil || !info.IsDir() {
		return []string{name}, err
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(entry.Name())) && !entry.IsDir() {
			files = append(files, filepath.Join(name, entry.Name()))
		}
	}
	if len(files) == 0 {
		return nil, errors.New("the folder has no .yaml, .yml or .json file")
	}
	return files, nil
}

// readCluster reads the objects of all kinds that the peer works with.
func (o *importOptions) readCluster(ctx context.Context) ([]*unstructured.Unstructured, error) {
	clients, err := o.host.clients()
	if err != nil {
		return nil, err
	}
	reader, err := newClusterReader(clients)
	if err != nil {
		return nil, err
	}
	progress := newProgress(o.Stderr)
	defer progress.End()
	var objects []*unstructured.Unstructured
	served := false
	var tried []string
	for _, kind := range o.peer.Kinds {
		progress.Step("reading %s", kind.Resource)
		resource, err := reader.served(kind)
		tried = append(tried, kind.Resource+"."+kind.Group)
		if apierrors.IsServiceUnavailable(err) {
			progress.End()
			o.warnf("note: %s.%s cannot be read, its API server does not answer: %s.\n", kind.Resource, kind.Group, oneLine(err.Error()))
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for %s in the cluster: %w", kind.Resource, err)
		}
		if resource.Empty() {
			continue
		}
		served = served || slices.Contains(o.peer.Groups, kind.Group)
		found, err := reader.list(ctx, resource)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", resource.GroupResource(), err)
		}
		objects = append(objects, found...)
	}
	if !served {
		return nil, hint(fmt.Errorf("the cluster (%s) has nothing of %s: it serves none of %s", o.host.where(), o.peer.Title, quoteList(own(o.peer, tried), "and")),
			"Choose another with --context, or read files with -f.")
	}
	if o.peer.More == nil {
		return objects, nil
	}
	for _, wanted := range o.peer.More(objects) {
		progress.Step("reading %s", wanted)
		found, err := reader.any(ctx, wanted)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", wanted, err)
		}
		objects = append(objects, found...)
	}
	return objects, nil
}

// own leaves out kinds of Kubernetes.
func own(peer migrate.Peer, resources []string) []string {
	return slices.DeleteFunc(slices.Clone(resources), func(resource string) bool {
		return !slices.ContainsFunc(peer.Groups, func(group string) bool { return strings.HasSuffix(resource, "."+group) })
	})
}

// clusterReader reads objects of any kind.
type clusterReader struct {
	discovery discovery.DiscoveryInterface
	dynamic   dynamic.Interface
	metadata  metadata.Interface
}

func newClusterReader(clients *hostClients) (*clusterReader, error) {
	dynamicClient, err := dynamic.NewForConfig(clients.config)
	if err != nil {
		return nil, err
	}
	metadataClient, err := metadata.NewForConfig(clients.config)
	if err != nil {
		return nil, err
	}
	return &clusterReader{clients.kube.Discovery(), dynamicClient, metadataClient}, nil
}

// served is the first version of a kind that the cluster serves; empty for none.
func (r *clusterReader) served(kind migrate.Kind) (schema.GroupVersionResource, error) {
	for _, version := range kind.Versions {
		gv := schema.GroupVersion{Group: kind.Group, Version: version}
		resources, err := r.discovery.ServerResourcesForGroupVersion(gv.String())
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return schema.GroupVersionResource{}, err
		}
		for _, resource := range resources.APIResources {
			if resource.Name == kind.Resource {
				return gv.WithResource(kind.Resource), nil
			}
		}
	}
	return schema.GroupVersionResource{}, nil
}

// any lists a kind in the version that the cluster prefers. There are none of a kind
// that it does not serve.
func (r *clusterReader) any(ctx context.Context, resource schema.GroupResource) ([]*unstructured.Unstructured, error) {
	groups, err := restmapper.GetAPIGroupResources(r.discovery)
	if err != nil {
		return nil, err
	}
	gvr, err := restmapper.NewDiscoveryRESTMapper(groups).ResourceFor(resource.WithVersion(""))
	if err != nil {
		return nil, nil //nolint:nilerr // the peer is configured for something that is not there
	}
	return r.list(ctx, gvr)
}

func (r *clusterReader) list(ctx context.Context, resource schema.GroupVersionResource) ([]*unstructured.Unstructured, error) {
	if resource.GroupResource() == corev1.Resource("secrets") {
		return r.names(ctx, resource) // nobody needs what is in them
	}
	var objects []*unstructured.Unstructured
	for options := (metav1.ListOptions{Limit: 500}); ; {
		list, err := r.dynamic.Resource(resource).List(ctx, options)
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			objects = append(objects, &list.Items[i])
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return objects, nil
		}
	}
}

// names lists objects without what is in them.
func (r *clusterReader) names(ctx context.Context, resource schema.GroupVersionResource) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	for options := (metav1.ListOptions{Limit: 500}); ; {
		list, err := r.metadata.Resource(resource).List(ctx, options)
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			list.Items[i].TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
			fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&list.Items[i])
			if err != nil {
				return nil, err
			}
			objects = append(objects, &unstructured.Unstructured{Object: fields})
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return objects, nil
		}
	}
}
