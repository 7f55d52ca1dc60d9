// Package kinds holds one file for each kind that crosses between a tenant and
// the host, and the list of them all.
package kinds
