// Package isolation is the fence around a tenant's host namespace: it turns
// what counts for the tenant into host objects. It is pure; each policy has a
// file, and All names them.
package isolation
