//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, `The local host needs Linux: it runs a real kubelet and containers.
Anything else works with any Kubernetes 1.30 or newer that you administer:
  export KUBECONFIG=<its kubeconfig>
  make install`)
	os.Exit(1)
}
