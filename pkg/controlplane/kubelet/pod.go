package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	api "github.com/sublet-dev/sublet/api/v1alpha1"
)

// pod is one of the tenant's, on both sides.
type pod struct {
	virtualNamespace, virtualName string
	hostName                      string
}

// resolve finds the pod that a request is about, and makes sure that it, and
// the container, are the tenant's. The labels of the host object decide, not
// its name alone: names can be guessed, the labels only a syncer writes.
func (s *Server) resolve(r *http.Request) (*pod, error) {
	ctx := r.Context()
	namespace, name := r.PathValue("namespace"), r.PathValue("pod")
	missing := &requestError{http.StatusNotFound, fmt.Sprintf("pod \"%s/%s\" does not exist", namespace, name)}

	client, err := s.virtualClient()
	if err != nil {
		return nil, fmt.Errorf("virtual client: %w", err)
	}
	virtual, err := client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, missing
	}
	if err != nil {
		return nil, fmt.Errorf("getting virtual pod \"%s/%s\": %w", namespace, name, err)
	}
	if uid := r.PathValue("uid"); uid != "" && uid != string(virtual.UID) {
		return nil, missing
	}
	if container := r.PathValue("container"); container != "" && !hasContainer(virtual, container) {
		return nil, &requestError{http.StatusNotFound, fmt.Sprintf("container %q not found in pod \"%s/%s\"", container, namespace, name)}
	}

	absent := &requestError{http.StatusNotFound, fmt.Sprintf("pod \"%s/%s\" is not on the host: its events say why", namespace, name)}
	hostName, err := s.options.HostPod(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return nil, absent
	}
	if err != nil {
		return nil, fmt.Errorf("finding the host pod of \"%s/%s\": %w", namespace, name, err)
	}
	host, err := s.host.CoreV1().Pods(s.options.HostNamespace).Get(ctx, hostName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, absent
	}
	if err != nil {
		return nil, fmt.Errorf("getting host pod %q: %w", hostName, err)
	}
	if host.Labels[api.LabelTenant] != s.options.Tenant ||
		host.Labels[api.LabelComponent] != api.ComponentSynced ||
		host.Annotations[api.AnnotationVirtualNamespace] != namespace ||
		host.Annotations[api.AnnotationVirtualName] != name ||
		host.Annotations[api.AnnotationVirtualUID] != string(virtual.UID) {
		return nil, &requestError{http.StatusForbidden, fmt.Sprintf("what runs on the host in the place of pod \"%s/%s\" does not belong to it: delete the pod and create it again", namespace, name)}
	}
	return &pod{virtualNamespace: namespace, virtualName: name, hostName: hostName}, nil
}

// hasContainer looks at the virtual pod: a sidecar that the host injected is
// not the tenant's.
func hasContainer(p *corev1.Pod, name string) bool {
	for i := range p.Spec.Containers {
		if p.Spec.Containers[i].Name == name {
			return true
		}
	}
	for i := range p.Spec.InitContainers {
		if p.Spec.InitContainers[i].Name == name {
			return true
		}
	}
	for i := range p.Spec.EphemeralContainers {
		if p.Spec.EphemeralContainers[i].Name == name {
			return true
		}
	}
	return false
}

// inVirtualNames rewrites the forms in which the host's API server, kubelet and
// runtime name a pod. A namespace alone is often a plain word, so it is only
// replaced where it is clearly one.
func (p *pod) inVirtualNames(text, hostNamespace string) string {
	return strings.NewReplacer(
		hostNamespace+"/"+p.hostName, p.virtualNamespace+"/"+p.virtualName,
		p.hostName+"_"+hostNamespace, p.virtualName+"_"+p.virtualNamespace,
		p.hostName, p.virtualName,
		"namespaces/"+hostNamespace+"/", "namespaces/"+p.virtualNamespace+"/",
		fmt.Sprintf("namespace %q", hostNamespace), fmt.Sprintf("namespace %q", p.virtualNamespace),
	).Replace(text)
}

// onNode serves what is about the virtual node that was dialed, and the pods that
// are bound to it.
func (s *Server) onNode(serve func(http.ResponseWriter, *http.Request, *corev1.Node, *corev1.PodList)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		node, err := s.nodeOf(r)
		if err != nil {
			writeError(w, r, err)
			return
		}
		pods, err := s.podsOf(r.Context(), node)
		if err != nil {
			writeError(w, r, err)
			return
		}
		serve(w, r, node, pods)
	}
}

func (s *Server) pods(w http.ResponseWriter, _ *http.Request, _ *corev1.Node, pods *corev1.PodList) {
	writeJSON(w, pods)
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // it fails when the client has gone
}

// nodeOf finds the virtual node that was dialed.
func (s *Server) nodeOf(r *http.Request) (*corev1.Node, error) {
	client, err := s.virtualClient()
	if err != nil {
		return nil, fmt.Errorf("virtual client: %w", err)
	}
	host, _ := r.Context().Value(nodeAddressKey{}).(string)
	nodes, err := client.CoreV1().Nodes().List(r.Context(), metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing virtual nodes: %w", err)
	}
	for i := range nodes.Items {
		for _, known := range nodes.Items[i].Status.Addresses {
			if known.Address == host {
				return &nodes.Items[i], nil
			}
		}
	}
	return nil, &requestError{http.StatusNotFound, fmt.Sprintf("no virtual node has the address %q", host)}
}

func (s *Server) podsOf(ctx context.Context, node *corev1.Node) (*corev1.PodList, error) {
	client, err := s.virtualClient()
	if err != nil {
		return nil, fmt.Errorf("virtual client: %w", err)
	}
	list, err := client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node.Name).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of virtual node %q: %w", node.Name, err)
	}
	list.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}
	return list, nil
}
