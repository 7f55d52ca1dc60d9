package quota

import (
	"cmp"
	"slices"
)

// leaf is what one namespace has of one resource.
type leaf struct {
	name string
	// bounds are the tenants at or above it that have a quota of the resource.
	bounds []string
	// share is what was decided last; claim is what may be in force or in use at
	// this moment, at least share.
	share, claim int64
	used         int64
	// settled says that the API server enforces share, so that it can be changed.
	settled bool
	// stirs says that something came or went a moment ago, so that share must not be
	// changed yet.
	stirs bool
	// demand is what was asked for and refused a short while ago.
	demand int64
	// leaving namespaces get nothing more.
	leaving bool
}

// allot decides anew. Limits are the quotas by tenant, grain is the smallest
// amount worth moving, and turn says whose turn it is. It returns the shares that
// change. The claims that follow from it never exceed a limit that they were
// within before.
func allot(leaves []leaf, limits map[string]int64, grain int64, turn int) map[string]int64 {
	a := newAllotment(leaves, limits, grain, turn)
	a.withinLimits()
	a.serve()
	changed := map[string]int64{}
	for i := range a.leaves {
		if l := &a.leaves[i]; l.share != leaves[i].share {
			changed[l.name] = l.share
		}
	}
	return changed
}

type allotment struct {
	leaves []leaf
	limits map[string]int64
	grain  int64
	// under are the leaves under each limit, by index; lit the one whose turn it is.
	under map[string][]int
	lit   map[string]int
	// used and room are, for each limit, what is in use, and what nobody claims.
	used, room map[string]int64
}

func newAllotment(leaves []leaf, limits map[string]int64, grain int64, turn int) *allotment {
	a := &allotment{
		leaves: slices.Clone(leaves), limits: limits, grain: max(grain, 1),
		under: map[string][]int{}, lit: map[string]int{}, used: map[string]int64{}, room: map[string]int64{},
	}
	for bound, limit := range limits {
		a.room[bound] = limit
	}
	for i, l := range leaves {
		for _, bound := range l.bounds {
			a.under[bound] = append(a.under[bound], i)
			a.used[bound] += l.used
			a.room[bound] -= l.claim
		}
	}
	for i := range a.leaves {
		// What cannot be had anyway must not keep others waiting.
		for _, bound := range a.leaves[i].bounds {
			if a.leaves[i].demand > a.slack(bound) {
				a.leaves[i].demand = 0
			}
		}
	}
	for bound, under := range a.under {
		staying := slices.DeleteFunc(slices.Clone(under), func(i int) bool { return leaves[i].leaving })
		if len(staying) > 0 {
			a.lit[bound] = staying[turn%len(staying)]
		} else {
			a.lit[bound] = -1
		}
	}
	return a
}

// slack is what a limit leaves free.
func (a *allotment) slack(bound string) int64 { return max(0, a.limits[bound]-a.used[bound]) }

// part is what everybody under a limit may have free.
func (a *allotment) part(bound string) int64 {
	part := a.slack(bound) / int64(2*len(a.under[bound]))
	return part - part%a.grain
}

// parts is what a leaf may have free, by all its limits.
func (a *allotment) parts(l *leaf) int64 {
	least := int64(-1)
	for _, bound := range l.bounds {
		if part := a.part(bound); least < 0 || part < least {
			least = part
		}
	}
	return max(0, least)
}

// extra is what a leaf should have free: its part or, if it is its turn, all that
// the parts of the others leave.
func (a *allotment) extra(i int) int64 {
	least := int64(-1)
	for _, bound := range a.leaves[i].bounds {
		own := a.part(bound)
		if a.lit[bound] == i {
			own = a.slack(bound) - own*int64(len(a.under[bound])-1)
		}
		if least < 0 || own < least {
			least = own
		}
	}
	return max(0, least)
}

func (a *allotment) isLit(i int) bool {
	return slices.ContainsFunc(a.leaves[i].bounds, func(bound string) bool { return a.lit[bound] == i })
}

// withinLimits shrinks shares that add up to more than a limit: what is free
// first, then below what is in use, so that nothing new comes until it fits.
func (a *allotment) withinLimits() {
	for _, bound := range sortedKeys(a.under) {
		over := -a.limits[bound]
		for _, i := range a.under[bound] {
			over += a.leaves[i].share
		}
		for _, floor := range []func(*leaf) int64{func(l *leaf) int64 { return l.used }, func(*leaf) int64 { return 0 }} {
			a.take(bound, over, floor, func(int) bool { return true }, &over)
		}
	}
}

// take shrinks the leaves under a limit by an amount, those first who have most
// above the floor, and lowers left by what was found.
func (a *allotment) take(bound string, amount int64, floor func(*leaf) int64, from func(int) bool, left *int64) {
	if amount <= 0 {
		return
	}
	givers := slices.Clone(a.under[bound])
	above := func(i int) int64 { return a.leaves[i].share - floor(&a.leaves[i]) }
	slices.SortStableFunc(givers, func(x, y int) int { return cmp.Compare(above(y), above(x)) })
	for _, i := range givers {
		l := &a.leaves[i]
		if !l.settled || l.stirs || above(i) <= 0 || !from(i) {
			continue
		}
		gives := min(above(i), amount)
		l.share -= gives
		*left -= gives
		if amount -= gives; amount <= 0 {
			return
		}
	}
}

// serve gives to those who need, and makes others give where there is nothing.
func (a *allotment) serve() {
	type need struct {
		leaf           int
		want, shortage int64
	}
	var needs []need
	needy := map[int]bool{}
	for i := range a.leaves {
		l := &a.leaves[i]
		if l.leaving || len(l.bounds) == 0 {
			continue
		}
		extra := a.extra(i)
		want, enough := l.used+extra, l.used+(extra+1)/2
		if a.isLit(i) {
			enough = want
		}
		if l.demand > extra {
			want = l.used + l.demand
			enough = want
		}
		if l.share < enough && !l.stirs {
			needs = append(needs, need{i, want, enough - l.share})
			needy[i] = true
		}
	}
	// Those first who were refused something, and of them who wants least.
	slices.SortStableFunc(needs, func(x, y need) int {
		first, second := a.leaves[x.leaf].demand, a.leaves[y.leaf].demand
		switch {
		case first > 0 && second > 0:
			return cmp.Compare(first, second)
		case first > 0:
			return -1
		case second > 0:
			return 1
		}
		return cmp.Compare(y.shortage, x.shortage)
	})
	for _, n := range needs {
		l := &a.leaves[n.leaf]
		gets := n.want - l.share
		for _, bound := range l.bounds {
			gets = min(gets, a.room[bound])
		}
		if gets > 0 {
			l.share += gets
			n.shortage -= gets
			for _, bound := range l.bounds {
				a.room[bound] -= gets
			}
		}
		for _, bound := range l.bounds {
			// What was taken from others and is not free yet is on its way.
			missing := n.shortage - max(0, a.room[bound]) - a.coming(bound)
			a.take(bound, missing, func(g *leaf) int64 { return g.used + max(a.parts(g), g.demand) },
				func(i int) bool { return i != n.leaf && !needy[i] }, &missing)
		}
	}
}

// coming is what shrinking shares under a limit will set free.
func (a *allotment) coming(bound string) int64 {
	var coming int64
	for _, i := range a.under[bound] {
		if l := a.leaves[i]; l.claim > l.share {
			coming += l.claim - l.share
		}
	}
	return coming
}
