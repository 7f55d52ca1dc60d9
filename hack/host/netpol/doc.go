// Package netpol enforces NetworkPolicies on the local host, so that network
// fences can be tested with real packets. It is meant for the local host alone:
// one node, IPv4, pods joined to the node by point-to-point interfaces.
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
// A pod is known by the address in its status, which the kubelet publishes up
// to a second or two after the pod's network is up; until then no policy holds
// for it, neither as a subject nor as a peer.
package netpol
