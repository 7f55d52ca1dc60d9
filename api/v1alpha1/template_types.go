package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Template is a set of manifests and a chart, with parameters, that tenants can
// refer to.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=tmpl,categories=sublet
// +kubebuilder:printcolumn:name="Description",type=string,JSONPath=`.spec.description`
// +kubebuilder:printcolumn:name="Tenants",type=integer,JSONPath=`.status.tenants`
// +kubebuilder:printcolumn:name="Applied",type=integer,JSONPath=`.status.applied`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.failed`
// +kubebuilder:printcolumn:name="Rolled out",type=string,JSONPath=`.status.conditions[?(@.type=="RolledOut")].status`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="RolledOut")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="a template's name has at most 63 characters"
type Template struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   TemplateSpec   `json:"spec"`
	Status TemplateStatus `json:"status,omitempty"`
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
	// +kubebuilder:validation:MaxItems=64
	Parameters []TemplateParameter `json:"parameters,omitempty"`
	// Manifests are Kubernetes objects. A string value in them may hold
	// parameters as ${NAME}, and what Sublet knows of the tenant as
	// ${tenant.name}, ${tenant.path}, ${tenant.parent}, ${tenant.namespace},
	// ${tenant.labels}, ${tenant.labels.KEY}, ${tenant.members},
	// ${tenant.members.ROLE}, ${tenant.subjects} and ${tenant.subjects.ROLE}. A
	// value that is nothing but a parameter becomes what the parameter is, a
	// number, a list; ${NAME:string} makes it text. $${ stands for ${ itself.
	//
	// In a Namespace tenant they are made in its namespace, and may be of
	// namespaced kinds only.
	// +optional
	// +listType=atomic
	// +kubebuilder:pruning:PreserveUnknownFields
	Manifests []runtime.RawExtension `json:"manifests,omitempty"`
	// Chart is a Helm chart. What it renders is applied like the manifests, after
	// them.
	// +optional
	Chart *TemplateChart `json:"chart,omitempty"`
	// Namespace, in a virtual cluster, is where what names no namespace goes:
	// "default" when empty. It is made if there is none.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Namespace string `json:"namespace,omitempty"`
}

// ParameterType is what the values of a parameter are.
//
// +kubebuilder:validation:Enum=string;integer;number;boolean;list
type ParameterType string

const (
	// ParameterString is any text.
	ParameterString ParameterType = "string"
	// ParameterInteger is a whole number.
	ParameterInteger ParameterType = "integer"
	// ParameterNumber is a number.
	ParameterNumber ParameterType = "number"
	// ParameterBoolean is true or false.
	ParameterBoolean ParameterType = "boolean"
	// ParameterList is a list of texts: "a,b", or as JSON.
	ParameterList ParameterType = "list"
)

// TemplateParameter is one parameter of a template. One that is neither required
// nor given nor has a default is empty text, 0, false or the empty list.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.required) && self.required && has(self.default) && size(self.default) > 0)",message="a required parameter has no default"
type TemplateParameter struct {
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_]*$`
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// +optional
	Description string `json:"description,omitempty"`
	// Type of the values; string when empty.
	// +optional
	Type ParameterType `json:"type,omitempty"`
	// Required parameters have no default and must be given.
	// +optional
	Required bool `json:"required,omitempty"`
	// Default is the value of a parameter that is not given.
	// +optional
	Default string `json:"default,omitempty"`
	// Pattern is a regular expression (RE2) that the whole value must match; of a
	// list, each entry.
	// +optional
	Pattern string `json:"pattern,omitempty"`
	// Enum are the only values there may be; of a list, the only entries.
	// +optional
	// +listType=atomic
	Enum []string `json:"enum,omitempty"`
}

// TemplateChart is a Helm chart, from exactly one of the places named here.
//
// +kubebuilder:validation:XValidation:rule="[has(self.archive), has(self.configMap), has(self.path), has(self.repository)].filter(x, x).size() == 1",message="a chart comes from exactly one of archive, configMap, path and repository"
type TemplateChart struct {
	// Not of the format byte: expressions of the schema read that as base64 for
	// URLs, and refuse / and +.

	// Archive is a packaged chart, as "helm package" makes it.
	// +optional
	// +kubebuilder:validation:MaxLength=1000000
	// +kubebuilder:validation:Format=""
	// +kubebuilder:validation:Pattern=`^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$`
	Archive []byte `json:"archive,omitempty"`
	// ConfigMap holds a packaged chart.
	// +optional
	ConfigMap *ChartConfigMap `json:"configMap,omitempty"`
	// Path is a chart, packaged or as a folder, in the manager's folder of charts.
	// +optional
	// +kubebuilder:validation:MinLength=1
	Path string `json:"path,omitempty"`
	// Repository is where a chart is published.
	// +optional
	Repository *ChartRepository `json:"repository,omitempty"`
	// ReleaseName is that of the release which the chart is told of; the
	// template's name when empty.
	// +optional
	// +kubebuilder:validation:MaxLength=53
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	ReleaseName string `json:"releaseName,omitempty"`
	// Values for the chart, which may hold parameters as manifests do.
	// +optional
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	Values *runtime.RawExtension `json:"values,omitempty"`
	// SkipCRDs leaves out what is in the chart's folder crds.
	// +optional
	SkipCRDs bool `json:"skipCRDs,omitempty"`
}

// ChartConfigMap is a key of a ConfigMap in the manager's namespace that holds a
// packaged chart under binaryData.
type ChartConfigMap struct {
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// Key of binaryData; chart.tgz when empty.
	// +optional
	Key string `json:"key,omitempty"`
}

// ChartRepository is one version of one published chart.
type ChartRepository struct {
	// URL of the repository: https://HOST/PATH, http://HOST/PATH, or
	// oci://HOST/PATH without the name of the chart.
	// +kubebuilder:validation:Pattern=`^(https?|oci)://.+$`
	URL string `json:"url"`
	// Name of the chart.
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// Version of the chart, in full: no range, so that nothing changes by itself.
	// +kubebuilder:validation:Pattern=`^v?[0-9]+\.[0-9]+\.[0-9]+([-+].+)?$`
	Version string `json:"version"`
	// CABundle holds the certificates, in PEM, of the authorities to believe; the
	// image of the manager has no list of public ones.
	// +optional
	CABundle []byte `json:"caBundle,omitempty"`
	// PlainHTTP speaks to an OCI registry without TLS.
	// +optional
	PlainHTTP bool `json:"plainHTTP,omitempty"`
	// SecretName names a Secret in the manager's namespace with username and
	// password for the repository.
	// +optional
	SecretName string `json:"secretName,omitempty"`
}

// Types of conditions of a Template.
const (
	// ConditionValid says whether the template can be used at all.
	ConditionValid = "Valid"
	// ConditionRolledOut is True when every tenant that the template applies to
	// has it as it stands now.
	ConditionRolledOut = "RolledOut"
)

// TemplateStatus is what became of a template.
type TemplateStatus struct {
	// ObservedGeneration is the generation of the spec that the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Tenants is how many tenants the template applies to, Folders not counted.
	// +optional
	Tenants int32 `json:"tenants"`
	// Applied is how many of them have it as it stands now. One that is applied
	// once, without sync, counts with whatever it was given.
	// +optional
	Applied int32 `json:"applied"`
	// Failed is how many have an error; their own status tells.
	// +optional
	Failed int32 `json:"failed"`
	// Conditions say where to look next.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// TemplateState is how far a template is in a tenant.
//
// +kubebuilder:validation:Enum=Waiting;Applying;Applied;Failed
type TemplateState string

const (
	// TemplateWaiting means that the tenant is not there yet.
	TemplateWaiting TemplateState = "Waiting"
	// TemplateApplying means that objects are being made, or a hook runs.
	TemplateApplying TemplateState = "Applying"
	// TemplateApplied means that all is there.
	TemplateApplied TemplateState = "Applied"
	// TemplateFailed means that something cannot be made; the message says what.
	TemplateFailed TemplateState = "Failed"
)

// AppliedTemplate is how far a template is in a tenant.
type AppliedTemplate struct {
	// Name of the Template.
	Name string `json:"name"`
	// State is where it stands, in one word.
	State TemplateState `json:"state"`
	// Reason is why, in one word.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Message says what to do, if anything.
	// +optional
	Message string `json:"message,omitempty"`
	// Sync says that the objects are kept in force, and go with the template.
	// +optional
	Sync bool `json:"sync,omitempty"`
	// ObservedGeneration is the generation of the Template that was last applied
	// in whole.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Revision tells apart what was last applied in whole: the template with its
	// parameters, filled in.
	// +optional
	Revision string `json:"revision,omitempty"`
	// Chart is the name and version of the chart that was last applied in whole.
	// +optional
	Chart string `json:"chart,omitempty"`
	// AppliedAt is when the revision was applied in whole.
	// +optional
	AppliedAt *metav1.Time `json:"appliedAt,omitempty"`
	// Objects are what the template made, and with sync what goes when it goes.
	// +optional
	// +listType=atomic
	Objects []TemplateObject `json:"objects,omitempty"`
}

// TemplateObject is an object that a template made.
type TemplateObject struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// +optional
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}
