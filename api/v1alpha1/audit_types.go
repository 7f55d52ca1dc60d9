package v1alpha1

// AuditSpec says which requests to the tenant's API are written down, and where.
// What it has of a Policy of audit.k8s.io/v1 means the same.
type AuditSpec struct {
	// Rules are looked through in order. The first one that matches a request says
	// how much of it is written down; what none matches is not.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Rules []AuditRule `json:"rules"`
	// OmitStages are stages of a request for which nothing is written down:
	// RequestReceived, ResponseStarted, ResponseComplete, Panic.
	// +optional
	// +listType=set
	OmitStages []AuditStage `json:"omitStages,omitempty"`
	// OmitManagedFields leaves managed fields out of what is written down.
	// +optional
	OmitManagedFields bool `json:"omitManagedFields,omitempty"`

	// Webhook gets the events. Without it they go to the standard output of the
	// control plane's pod, each a line of JSON.
	// +optional
	Webhook *AuditWebhook `json:"webhook,omitempty"`
}

// AuditLevel is how much of a request is written down.
//
// +kubebuilder:validation:Enum=None;Metadata;Request;RequestResponse
type AuditLevel string

// AuditStage is a stage of a request.
//
// +kubebuilder:validation:Enum=RequestReceived;ResponseStarted;ResponseComplete;Panic
type AuditStage string

// AuditRule matches requests by all that it says; what is empty matches all.
type AuditRule struct {
	// Level is None, Metadata, Request or RequestResponse.
	Level AuditLevel `json:"level"`
	// +optional
	// +listType=set
	Users []string `json:"users,omitempty"`
	// +optional
	// +listType=set
	UserGroups []string `json:"userGroups,omitempty"`
	// +optional
	// +listType=set
	Verbs []string `json:"verbs,omitempty"`
	// Resources by their groups; the core group is empty.
	// +optional
	// +listType=atomic
	Resources []AuditResources `json:"resources,omitempty"`
	// Namespaces; an empty name stands for what is in none.
	// +optional
	// +listType=set
	Namespaces []string `json:"namespaces,omitempty"`
	// NonResourceURLs are paths such as "/healthz*".
	// +optional
	// +listType=set
	NonResourceURLs []string `json:"nonResourceURLs,omitempty"`
	// +optional
	// +listType=set
	OmitStages []AuditStage `json:"omitStages,omitempty"`
	// +optional
	OmitManagedFields *bool `json:"omitManagedFields,omitempty"`
}

// AuditResources are resources of one API group.
type AuditResources struct {
	// +optional
	Group string `json:"group,omitempty"`
	// Resources such as "pods", "pods/log" or "*".
	// +optional
	// +listType=set
	Resources []string `json:"resources,omitempty"`
	// +optional
	// +listType=set
	ResourceNames []string `json:"resourceNames,omitempty"`
}

// AuditWebhook is where events are sent, several at a time, as an EventList of
// audit.k8s.io/v1.
type AuditWebhook struct {
	// URL to send to. It is reached as from a pod of the tenant.
	// +kubebuilder:validation:Pattern=`^https://`
	URL string `json:"url"`
	// CABundle verifies the server's certificate, as PEM. It is needed: the control
	// plane's image has no list of public authorities.
	// +kubebuilder:validation:MinLength=1
	CABundle []byte `json:"caBundle"`
}
