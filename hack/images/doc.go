// Package images makes every image that the local host needs, as archives to be
// imported, since there is no registry to pull from: Kubernetes' own test image,
// CoreDNS and the pause container from the Go modules of this repository, and
// Sublet itself from its Dockerfile. Archives are kept in .cache/images and made
// again only when what they are made from has changed.
package images
