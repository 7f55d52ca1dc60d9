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
	CoreDNSImage, MetricsServerImage string

	ClusterDomain string
	DNSAddress    netip.Addr
	// Provisioner of the StorageClass.
	Provisioner string
}

const fieldManager = "sublet-host"

const (
	// DNS is the cluster's DNS, Storage the default StorageClass: every local host
	// has them.
	DNS     = "coredns"
	Storage = "storage"
	// Metrics is what the nodes and pods use, for kubectl top and for autoscaling.
	Metrics = "metrics-server"
)

// Render returns the objects of some addons in the order in which they are to be
// applied.
func Render(v Values, addons ...string) ([]*unstructured.Unstructured, error) {
	set, err := template.New("").Option("missingkey=error").ParseFS(manifests, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("parse the addons: %w", err)
	}
	var objects []*unstructured.Unstructured
	for _, addon := range addons {
		name := addon + ".yaml"
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

// Apply makes the objects of some addons so, whatever was made of them.
func Apply(ctx context.Context, config *rest.Config, v Values, addons ...string) error {
	objects, err := Render(v, addons...)
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
		"APIService":         "apiservices",
		"ClusterRole":        "clusterroles",
		"ClusterRoleBinding": "clusterrolebindings",
		"ConfigMap":          "configmaps",
		"Deployment":         "deployments",
		"RoleBinding":        "rolebindings",
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

// Ready returns what is missing until an addon that is a Deployment works.
func Ready(ctx context.Context, config *rest.Config, addon string) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client for the local host: %w", err)
	}
	deployment, err := client.AppsV1().Deployments(metav1.NamespaceSystem).Get(ctx, addon, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get the Deployment of %s: %w", addon, err)
	}
	return deploymentReady(deployment)
}

// Measured returns what is missing until it is known what each node uses.
func Measured(ctx context.Context, config *rest.Config) error {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client for the local host: %w", err)
	}
	nodes, err := client.Resource(corev1.SchemeGroupVersion.WithResource("nodes")).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the nodes: %w", err)
	}
	measured, err := client.Resource(schema.GroupVersionResource{Group: "metrics.k8s.io", Version: "v1beta1", Resource: "nodes"}).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("ask what the nodes use: %w", err)
	}
	if len(measured.Items) < len(nodes.Items) {
		return fmt.Errorf("it is known of %d nodes what they use, of %d", len(measured.Items), len(nodes.Items))
	}
	return nil
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

func deploymentReady(d *appsv1.Deployment) error {
	wanted := int32(1)
	if d.Spec.Replicas != nil {
		wanted = *d.Spec.Replicas
	}
	if d.Status.ObservedGeneration < d.Generation || d.Status.UpdatedReplicas < wanted || d.Status.AvailableReplicas < wanted {
		return fmt.Errorf("%s has %d of %d pods available", d.Name, d.Status.AvailableReplicas, wanted)
	}
	return nil
}
