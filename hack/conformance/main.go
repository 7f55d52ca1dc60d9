// Command conformance runs Kubernetes' own conformance suite.
package main

func main() {}
