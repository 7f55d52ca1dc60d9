// Package template applies Templates in tenants: in the namespace of a Namespace
// tenant with the rights of an admin of it, in a virtual cluster through its API.
//
//	Tenant.status.effective.templates     which, and with which parameters
//	        │ plan      pkg/template, pkg/helm: objects and hooks
//	        ▼
//	inventory in Tenant.status.templates  written before anything is made, so
//	        │                             that nothing is ever forgotten
//	        ▼
//	hooks before ─► objects ─► hooks after ─► prune
//	        │
//	        ▼
//	watches on what was made              what somebody changes is changed back
//
// A second controller counts, in the status of each Template, how many tenants
// have it as it stands now.
package template
