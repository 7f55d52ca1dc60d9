// Package syncer runs a tenant's objects on the host and brings back what
// became of them.
//
//	tenant's API server                                     host's API server
//	      │ watch                                                 ▲ │ watch
//	      ▼                                                       │ ▼
//	┌───────────────────────────────────────────────────────────────────────┐
//	│ engine   gather     read both sides, and what Kind.Refs names         │
//	│ kinds    translate  Kind.ToHost                    virtual ─► host    │
//	│ engine   apply      write what differs: create, Kind.Merge, tokens    │
//	│ kinds    status     Kind.Bind, Kind.Status         host ─► virtual    │
//	└───────────────────────────────────────────────────────────────────────┘
//
// Kinds that begin on the host (Node, StorageClass, Event) go the other way
// only, by Kind.ToVirtual. The three parts:
//
//   - translate: the vocabulary; pure.
//   - kinds: one file for each kind; pure. To add one, write
//     kinds/<kind>.go, add a line in kinds/all.go, goldens under
//     kinds/testdata/<kind>, and a fuzz target.
//   - engine: one reconciler for all kinds; it knows none of them.
//
// Services are special in one point: the tenant's API server asks
// [Syncer.AllocateService] before it stores one. The Service is then made on
// the host first (ToHost, on update Merge), and what the host decided goes
// back into the virtual one (Status) before anybody has seen it, so that
// addresses and node ports are the same on both sides from the beginning.
package syncer
