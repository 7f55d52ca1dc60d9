package quota

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func at(name string, share, used int64, bounds ...string) leaf {
	return leaf{name: name, share: share, claim: max(share, used), used: used, settled: true, bounds: bounds}
}

func TestAllot(t *testing.T) {
	waiting := at("a", 1, 1, "team")
	waiting.claim, waiting.settled = 4, false
	asking := at("b", 5, 5, "team")
	asking.demand = 3
	impossible := at("b", 3, 2, "team")
	impossible.demand = 9
	want := func(name string, amount int64) leaf {
		l := at(name, 0, 0, "team")
		l.demand = amount
		return l
	}
	leaving := at("a", 0, 0, "team")
	leaving.leaving = true
	cases := map[string]struct {
		leaves []leaf
		limits map[string]int64
		turn   int
		want   map[string]int64
		reason string
	}{
		"the first shares": {
			leaves: []leaf{at("a", 0, 0, "team"), at("b", 0, 0, "team")}, limits: map[string]int64{"team": 5},
			want: map[string]int64{"a": 4, "b": 1}, reason: "half of it in parts, the rest to whose turn it is; all of it is somewhere",
		},
		"another's turn shrinks first": {
			leaves: []leaf{at("a", 4, 0, "team"), at("b", 1, 0, "team")}, limits: map[string]int64{"team": 5}, turn: 1,
			want: map[string]int64{"a": 1}, reason: "nobody grows before what he gets is free",
		},
		"and grows when it is free": {
			leaves: []leaf{at("a", 1, 0, "team"), at("b", 1, 0, "team")}, limits: map[string]int64{"team": 5}, turn: 1,
			want: map[string]int64{"b": 4},
		},
		"not before it is enforced": {
			leaves: []leaf{waiting, at("b", 1, 1, "team")}, limits: map[string]int64{"team": 5}, turn: 1,
			want: map[string]int64{}, reason: "what was taken still counts",
		},
		"the last one goes where the turn is": {
			leaves: []leaf{at("a", 3, 3, "team"), at("b", 2, 1, "team")}, limits: map[string]int64{"team": 5},
			want: map[string]int64{"b": 1},
		},
		"a refusal is served first": {
			leaves: []leaf{at("a", 10, 2, "team"), asking}, limits: map[string]int64{"team": 15},
			want: map[string]int64{"a": 7},
		},
		"a refusal of more than there is": {
			leaves: []leaf{at("a", 5, 2, "team"), impossible}, limits: map[string]int64{"team": 8},
			want: map[string]int64{}, reason: "nobody else has to wait for it",
		},
		"of two refusals the smaller first": {
			leaves: []leaf{at("a", 6, 0, "team"), want("b", 2), want("c", 5)}, limits: map[string]int64{"team": 6},
			want: map[string]int64{"a": 1}, reason: "everybody keeps his part",
		},
		"and it gets what is free": {
			leaves: []leaf{at("a", 1, 0, "team"), want("b", 2), want("c", 5)}, limits: map[string]int64{"team": 6},
			want: map[string]int64{"b": 2, "c": 3},
		},
		"a limit below what is in use": {
			leaves: []leaf{at("a", 4, 3, "team"), at("b", 4, 4, "team")}, limits: map[string]int64{"team": 5},
			want: map[string]int64{"b": 2, "a": 3}, reason: "nothing new comes until it fits",
		},
		"the narrower of two limits": {
			leaves: []leaf{at("a", 0, 0, "company", "team"), at("b", 0, 0, "company")}, limits: map[string]int64{"company": 100, "team": 4},
			want: map[string]int64{"a": 4, "b": 25},
		},
		"who leaves gets nothing": {
			leaves: []leaf{leaving, at("b", 0, 0, "team")}, limits: map[string]int64{"team": 4},
			want: map[string]int64{"b": 3},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, allot(c.leaves, c.limits, 1, c.turn)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.reason, diff)
			}
		})
	}
}

// namespace is what an API server has of one: what is wanted, what is enforced,
// what is in use; and what a cache that is behind shows of it.
type namespace struct {
	spec, hard, used int64
	seen             struct{ spec, hard, used int64 }
	share            int64
	bounds           []string
}

// TestNeverMoreThanTheLimit plays an API server, its quota controller, caches that
// lag behind, and people who create and delete, in any order.
func TestNeverMoreThanTheLimit(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 7))
		limits := map[string]int64{"company": int64(r.IntN(12)), "team": int64(r.IntN(6))}
		spaces := make([]*namespace, 2+r.IntN(4))
		for i := range spaces {
			spaces[i] = &namespace{bounds: []string{"company"}}
			if i%2 == 0 {
				spaces[i].bounds = []string{"company", "team"}
			}
		}
		turn := 0
		sum := func(bound string, of func(*namespace) int64) int64 {
			var total int64
			for _, n := range spaces {
				for _, b := range n.bounds {
					if b == bound {
						total += of(n)
					}
				}
			}
			return total
		}
		decide := func() {
			var leaves []leaf
			for i, n := range spaces {
				leaves = append(leaves, leaf{
					name: fmt.Sprint(i), bounds: n.bounds, share: n.share, used: n.seen.used,
					settled: n.seen.spec == n.share && n.seen.hard == n.share,
					claim:   max(n.share, n.seen.spec, n.seen.hard, n.seen.used),
				})
			}
			for name, share := range allot(leaves, limits, 1, turn) {
				var i int
				_, _ = fmt.Sscan(name, &i)
				spaces[i].share = share
			}
		}
		for step := range 400 {
			n := spaces[r.IntN(len(spaces))]
			switch r.IntN(8) {
			case 0:
				decide()
			case 1:
				n.spec = n.share // the fence is applied
			case 2:
				n.hard = n.spec // the quota controller has been there
			case 3:
				n.seen.spec, n.seen.hard, n.seen.used = n.spec, n.hard, n.used
			case 4, 5:
				if n.used < n.hard {
					n.used++
				}
			case 6:
				n.used = max(0, n.used-1)
			case 7:
				turn++
			}
			for bound, limit := range limits {
				if got := sum(bound, func(n *namespace) int64 { return max(n.hard, n.used) }); got > limit {
					t.Fatalf("seed %d, step %d: %d may come under %s, which has a limit of %d", seed, step, got, bound, limit)
				}
			}
		}
		// Left alone, all of a limit can be had by somebody, and nothing moves.
		still := 0
		for range 50 {
			before := fmt.Sprint(shares(spaces))
			decide()
			for _, n := range spaces {
				n.spec = n.share
				n.hard = n.spec
				n.seen.spec, n.seen.hard, n.seen.used = n.spec, n.hard, n.used
			}
			if fmt.Sprint(shares(spaces)) == before {
				still++
			} else {
				still = 0
			}
		}
		if still < 10 {
			t.Fatalf("seed %d: the shares do not come to rest: %v", seed, shares(spaces))
		}
	}
}

func shares(spaces []*namespace) []int64 {
	var all []int64
	for _, n := range spaces {
		all = append(all, n.share)
	}
	return all
}

// TestEverybodyGetsATurn holds that what is free can be had anywhere in the end.
func TestEverybodyGetsATurn(t *testing.T) {
	limits := map[string]int64{"team": 5}
	leaves := []leaf{at("a", 2, 2, "team"), at("b", 2, 2, "team"), at("c", 1, 0, "team")}
	had := map[string]bool{}
	for turn := range 3 {
		for range 4 { // shrink, wait, grow, rest
			for name, share := range allot(leaves, limits, 1, turn) {
				for i := range leaves {
					if leaves[i].name == name {
						leaves[i].share = share
					}
				}
			}
			for i := range leaves {
				leaves[i].claim = max(leaves[i].share, leaves[i].used)
			}
		}
		for _, l := range leaves {
			if l.share > l.used {
				had[l.name] = true
			}
		}
	}
	if len(had) != 3 {
		t.Errorf("only %v could have had what is free", had)
	}
}
