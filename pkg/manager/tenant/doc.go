// Package tenant reconciles Tenants: it makes the host namespace of each, the
// fence around it and, for a VirtualCluster, the control plane in it; it says
// in conditions what stands in the way; and it takes everything away again.
//
//	Reconcile
//	  ├─ deleted?  finalize       deletion.go, below.go, sweep.go
//	  └─ else
//	     place it in the tree     place.go
//	     its time is over?        expiry.go
//	     in order, until one is blocked, and only with a place in the tree:
//	       namespace              namespace.go
//	       groundwork             groundwork.go   (VirtualCluster)
//	       fence                  fence.go
//	       access                 access.go
//	       control plane          controlplane.go (VirtualCluster)
//	     then observe             observe.go      (VirtualCluster)
//	     then one status write    status.go
package tenant
