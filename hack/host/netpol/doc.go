// Package netpol enforces NetworkPolicies on the local host, so that network
// fences can be tested with real packets. It is meant for the local host alone:
// IPv4, pods joined to their node by point-to-point interfaces, one enforcer on
// each node for the node's own pods.
//
//	informers ─► Compile (pure) ─► Ruleset ─► one nftables transaction
//
// A packet of a pod passes the forward hook on its way to another pod or out,
// and the input hook on its way to the node itself (which is where a connection
// to the API server's Service ends, once kube-proxy has translated its address).
// Both hooks ask whether the sender's egress policies allow it; the forward
// hook also whether the receiver's ingress policies do. Addresses are those
// after kube-proxy's translation. Packets from the node to its pods, such as
// the kubelet's probes, leave through the output hook and are never looked at.
//
// The address of a pod is known before its containers start, from the files of
// the host-local plugin and of the runtime; the kubelet tells it in the pod's
// status a second or two later.
package netpol
