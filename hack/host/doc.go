// Command host is the local host: a real single-node Kubernetes on a bare Linux
// machine, for the demo, the tests and for trying things out. Its control plane
// is Sublet's own, with all controllers; scheduler, kubelet, kube-proxy,
// containerd, runc and the CNI plugins are the real ones.
//
//	host up ─► sandbox (namespaces, veth, cgroup)
//	             └─ process 1: host init (supervise)
//	                  ├─ containerd ─► runc ─► pods
//	                  ├─ host run controlplane      (pkg/controlplane)
//	                  ├─ host run kube-scheduler, kubelet, kube-proxy
//	                  └─ host run netpol, local-path
//	        ─► images from .cache/images, CoreDNS, a StorageClass
//
// Nothing of it reaches out of the machine, and two checkouts do not meet.
// `host down` leaves nothing but the caches in .cache.
package main
