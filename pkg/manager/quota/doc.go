// Package quota shares the quota of a tenant out among the namespaces below it,
// by native ResourceQuotas and nothing else. The shares never add up to more than
// the quota, whoever races with whom:
//
//	decide    a namespace that needs more gets what nobody has; if there is
//	          nothing, others that have more than they need are made to give
//	shrink    their ResourceQuota is made smaller, and counts as large as it was
//	wait      until its status.hard shows the smaller one: from then on the API
//	          server refuses by that
//	grow      only now somebody else gets it
//
// Half of what is free is with everybody in equal parts, the rest with one after
// the other in turn, so that what is left can be had anywhere; a refusal that an
// event tells of brings the turn at once.
//
//	allot.go       the decision: pure, on figures
//	ledger.go      what was decided, and what may be in force still
//	reconciler.go  when to decide, and who is told
package quota
