// Package template fills in Templates: it turns one, the parameters of a
// reference and what is known of a tenant into objects. Parameters are put in
// place of values in parsed objects, never into text that is parsed afterwards,
// so that no value can add an object or a field. It is pure: no client, no clock.
package template
