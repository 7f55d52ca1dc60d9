// Package sandbox keeps one local host apart from the machine and from other
// local hosts: network, mount, process, host name and IPC namespaces of its own,
// one parent cgroup, one veth to the machine, and no way out.
//
//	machine                       │ sandbox
//	                              │  init (process 1), everything below it
//	sublet-<id>  10.2xx.x.1/29 ───┼── eth0  10.2xx.x.2/29, no default route
//	.host/var/lib                 │  /var/lib   .host/var/log  /var/log
//	                              │  /run, /proc, /sys of its own
//	/sys/fs/cgroup/*/sublet-<id>  │  all of its processes and pods
//
// The sandbox is the first node of the cluster. Further ones are in it, each in
// namespaces of its own within those of the first, through which all that it sends
// goes:
//
//	sandbox = node-1              │ node-2
//	                              │  init (process 1 there)
//	node-2  10.2xx.x.2 ───────────┼── eth0  10.2xx.x.3, default route to node-1
//	route of its pods' range      │  .host/node-2/var/lib on /var/lib
//	sublet-<id>/node-2            │  all of its processes and pods
//
// Everything but the cgroup, the veth and the files goes away with process 1,
// since the kernel ends a process namespace with its first process.
//
// One setting of the machine is raised as long as there is a sandbox: how many
// inotify instances a user may have, which the kernel counts for all namespaces together.
package sandbox
