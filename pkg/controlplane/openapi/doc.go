// Package openapi serves the OpenAPI documents of a control plane: those of its
// own kinds, of custom resources and of aggregated APIs, put together as upstream
// does it.
//
// Upstream builds every document as the API server starts, and keeps it: half a
// second and forty megabytes for something that is asked for now and then, and
// it looks for changes each second. Here a document is built when somebody asks
// for it, is kept compressed for a while, and is then dropped:
//
//	request ─► what the document is made of ─► hash: in the list of documents,
//	           (routes, CRDs, API services)          ETag, 304 Not Modified
//	                     │ only for the content
//	                     ▼
//	               build ─► compressed, for some minutes ─► response
//
// The hash by which clients know a document is that of what it is made of, so
// that the list of documents, the only thing that clients ask for often, needs
// nothing to be built.
package openapi
