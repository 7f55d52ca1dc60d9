// Package virtualcluster turns what counts for a VirtualCluster tenant into the
// host objects that make up its control plane. It is pure: keys, certificates
// and addresses are handed to it.
//
//	made first          need addresses     needs all of it
//	Services       ───► ConfigMap     ───► StatefulSet ─► Pod sublet-0
//	Secrets, ServiceAccounts,
//	RoleBindings
package virtualcluster
