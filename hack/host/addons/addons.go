package addons

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"text/template"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

//go:embed *.yaml
var manifests embed.FS

// Values are what the manifests differ in.
type Values struct {
	// Image of CoreDNS.
	Image         string
	ClusterDomain string
	DNSAddress    netip.Addr
	// Provisioner of the StorageClass.
	Provisioner string
}

const fieldManager = "sublet-host"

// Render returns the objects in the order in which they are to be applied.
func Render(v Values) ([]*unstructured.Unstructured, error) {
	set, err := template.New("").Option("missingkey=error").ParseFS(manifests, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("parse the addons: %w", err)
	}
	var objects []*unstructured.Unstructured
	for _, name := range []string{"storage.yaml", "coredns.yaml"} {
		var out bytes.Buffer
		if err := set.ExecuteTemplate(&out, name, v); err != nil {
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
		decoder := yaml.NewYAMLOrJSONDecoder(&out, 4096)
		for {
			object := &unstructured.Unstructured{}
			err := decoder.Decode(&object.Object)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", name, err)
			}
			objects = append(objects, object)
		}
	}
	return objects, nil
}

// Apply makes the objects so, whatever was made of them.
func Apply(ctx context.Context, config *rest.Config, v Values) error {
	objects, err := Render(v)
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client for the local host: %w", err)
	}
	for _, object := range objects {
		resource, err := resourceOf(object)
		if err != nil {
			return err
		}
		var target dynamic.ResourceInterface = client.Resource(resource)
		if object.GetNamespace() != "" {
			target = client.Resource(resource).Namespace(object.GetNamespace())
		}
		if _, err := target.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// resourceOf knows the few kinds there are, which saves asking the server.
func resourceOf(object *unstructured.Unstructured) (schema.GroupVersionResource, error) {
	plurals := map[string]string{
		"ClusterRole":        "clusterroles",
		"ClusterRoleBinding": "clusterrolebindings",
		"ConfigMap":          "configmaps",
		"Deployment":         "deployments",
		"Service":            "services",
		"ServiceAccount":     "serviceaccounts",
		"StorageClass":       "storageclasses",
	}
	plural, known := plurals[object.GetKind()]
	if !known {
		return schema.GroupVersionResource{}, fmt.Errorf("an addon has the kind %q, whose plural is not known", object.GetKind())
	}
	return object.GroupVersionKind().GroupVersion().WithResource(plural), nil
}

// NodeReady returns what is missing until a node runs pods: an error that says so,
// or nil.
func NodeReady(ctx context.Context, config *rest.Config, name string) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client for the local host: %w", err)
	}
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("the kubelet has not registered the node %s", name)
	}
	if err != nil {
		return fmt.Errorf("get the node: %w", err)
	}
	return nodeReady(node)
}

// Ready returns what is missing until pods find each other.
func Ready(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client for the local host: %w", err)
	}
	dns, err := client.AppsV1().Deployments(metav1.NamespaceSystem).Get(ctx, "coredns", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get the Deployment of CoreDNS: %w", err)
	}
	return deploymentReady(dns)
}

func nodeReady(node *corev1.Node) error {
	for _, condition := range node.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		if condition.Status == corev1.ConditionTrue {
			return nil
		}
		return fmt.Errorf("the node %s is not ready: %s", node.Name, condition.Message)
	}
	return fmt.Errorf("the node %s has not said whether it is ready", node.Name)
}

func deploymentReady(dns *appsv1.Deployment) error {
	wanted := int32(1)
	if dns.Spec.Replicas != nil {
		wanted = *dns.Spec.Replicas
	}
	if dns.Status.ObservedGeneration < dns.Generation || dns.Status.UpdatedReplicas < wanted || dns.Status.AvailableReplicas < wanted {
		return fmt.Errorf("CoreDNS has %d of %d pods available", dns.Status.AvailableReplicas, wanted)
	}
	return nil
}
