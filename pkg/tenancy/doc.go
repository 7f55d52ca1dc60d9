// Package tenancy tells what counts for a tenant: it turns what Tenants ask for
// into one Effective, with every default filled in and everything wrong named.
// It is pure: no client, no clock.
package tenancy
