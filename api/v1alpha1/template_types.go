package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Template is a set of manifests with parameters that tenants can refer to.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=tmpl,categories=sublet
// +kubebuilder:printcolumn:name="Description",type=string,JSONPath=`.spec.description`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Template struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec TemplateSpec `json:"spec"`
}

// TemplateList is a list of Templates.
//
// +kubebuilder:object:root=true
type TemplateList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Template `json:"items"`
}

// TemplateSpec is what a template makes in a tenant.
type TemplateSpec struct {
	// Description is shown to people who choose a template.
	// +optional
	Description string `json:"description,omitempty"`
	// Parameters that a reference may or must give.
	// +optional
	// +listType=map
	// +listMapKey=name
	Parameters []TemplateParameter `json:"parameters,omitempty"`
	// Manifests are Kubernetes objects; a string value in them may hold
	// parameters as ${NAME}.
	// +optional
	// +listType=atomic
	// +kubebuilder:pruning:PreserveUnknownFields
	Manifests []runtime.RawExtension `json:"manifests,omitempty"`
}

// TemplateParameter is one parameter of a template.
type TemplateParameter struct {
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_]*$`
	Name string `json:"name"`
	// +optional
	Description string `json:"description,omitempty"`
	// Required parameters have no default and must be given.
	// +optional
	Required bool `json:"required,omitempty"`
	// +optional
	Default string `json:"default,omitempty"`
	// Pattern is a regular expression that the whole value must match.
	// +optional
	Pattern string `json:"pattern,omitempty"`
}
