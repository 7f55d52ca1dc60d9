// Package images makes every image that the local host needs, as archives to be
// imported, since there is no registry to pull from: those of Kubernetes' own
// tests, CoreDNS and the pause container from the Go modules of this repository
// and from Debian's packages and sources, and Sublet itself from its Dockerfile. Archives are
// kept in .cache/images and made again only when what they are made from has
// changed.
//
//	pause  coredns  subletd       one static binary each
//	agnhost                       Debian ◄─ agnhost ◄─ kitten, nautilus
//	busybox                       busybox, of its sources, and Debian's C library
//	nginx  nonewprivs  nonroot    busybox ◄─ packages ◄─ files, static binaries
//	resource-consumer  sample-apiserver  etcd
package images
