// Command dnsserver is CoreDNS with the plugins of the server that Kubernetes' own
// DNS tests run in a pod.
package main

import (
	// Each plugin registers itself.
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/log"

	"github.com/coredns/coredns/coremain"
)

func main() { coremain.Run() }
