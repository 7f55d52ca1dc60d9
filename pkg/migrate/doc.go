// Package migrate turns the objects of other tenancy systems into Tenants and
// Templates. It is pure: objects in, objects and notes out.
//
// Each file has one peer, with the table of what becomes of its objects at the
// top. What they have in common:
//
//   - A namespace becomes a tenant of type Namespace. Its name is the namespace's
//     where that can be the name of a tenant; else spec.namespace names it. The
//     namespace itself is not touched.
//   - The ClusterRoles admin, edit and view become the roles of that name. Who had
//     another one does not become a member: nobody has more here than there.
//   - What has no counterpart here is told in a Note, object by object and field by
//     field, with what to do instead. A field that nobody knew of when this was
//     written is told like one without a counterpart.
//   - A list of what may be used that cannot be put into words here allows nothing,
//     never everything.
package migrate
