// Package v1alpha1 is the API of Sublet: the kinds Tenant and Template, their
// conditions, and every label and annotation key that Sublet writes. It is the
// one vocabulary that the manager, the syncer and the command line share, and
// it imports only k8s.io/apimachinery and k8s.io/api.
//
// +kubebuilder:object:generate=true
// +groupName=sublet.dev
package v1alpha1
