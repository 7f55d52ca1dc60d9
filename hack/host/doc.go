// Command host is the local host: a real Kubernetes on a bare Linux machine, for
// the demo, the tests and for trying things out. Its control plane is Sublet's own,
// with all controllers; scheduler, kubelet, kube-proxy, containerd, runc and the CNI
// plugins are the real ones. It has one node, or more with `host up --nodes 2`,
// which also adds them to a host that runs.
//
//	host up ─► sandbox (namespaces, veth, cgroup)
//	             └─ process 1: host init (supervise)
//	                  ├─ containerd ─► runc ─► pods
//	                  ├─ host run registry          (what containerd pulls from)
//	                  ├─ host run controlplane      (pkg/controlplane)
//	                  ├─ host run kube-scheduler, kubelet, kube-proxy
//	                  ├─ host run netpol, local-path
//	                  └─ host init node-2 (supervise), in namespaces of its own
//	                       ├─ containerd ─► runc ─► pods
//	                       └─ host run registry, kubelet, kube-proxy, netpol, local-path
//	        ─► images from .cache/images, CoreDNS, a StorageClass
//
// Nothing of it reaches out of the machine, and two checkouts do not meet.
// `host down` leaves nothing but the caches in .cache.
package main
