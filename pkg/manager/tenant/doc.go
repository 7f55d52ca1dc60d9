// Package tenant reconciles Tenants: it makes the host namespace of each, the
// fence around it and, for a VirtualCluster, the control plane in it; it says
// in conditions what stands in the way; and it takes everything away again.
//
//	Reconcile
//	  ├─ deleted?  finalize       deletion.go, sweep.go
//	  └─ else, in order, until one is blocked:
//	       namespace              namespace.go
//	       groundwork             groundwork.go   (VirtualCluster)
//	       fence                  fence.go
//	       access                 access.go
//	       control plane          controlplane.go (VirtualCluster)
//	     then observe             observe.go      (VirtualCluster)
//	     then one status write    status.go
package tenant
