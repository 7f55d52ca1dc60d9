package quota

import (
	"testing"
	"time"
)

// TestQuiet: a share may be changed when nothing came or went for a while, when
// nothing can have come, and where there never is such a while.
func TestQuiet(t *testing.T) {
	start := time.Unix(1000, 0)
	type look struct {
		at   time.Duration
		seen seen
		want bool
	}
	busy := []look{{0, seen{hard: 50, used: 0}, false}}
	for i := range 25 {
		at := time.Duration(i+1) * quietTime / 2
		busy = append(busy, look{at, seen{hard: 50, used: int64(i + 1)}, at >= patience})
	}
	cases := map[string][]look{
		"Closed":       {{0, seen{}, true}},
		"Opened":       {{0, seen{}, true}, {time.Millisecond, seen{hard: 5}, true}, {2 * time.Millisecond, seen{hard: 5, used: 1}, false}, {quietTime, seen{hard: 5, used: 1}, false}, {quietTime + 2*time.Millisecond, seen{hard: 5, used: 1}, true}},
		"NotKnown":     {{0, seen{hard: 5, used: 2}, false}, {quietTime, seen{hard: 5, used: 2}, true}},
		"Goes":         {{0, seen{hard: 5, used: 2}, false}, {time.Hour, seen{hard: 5, used: 1}, false}, {time.Hour + quietTime, seen{hard: 5, used: 1}, true}},
		"WithoutPause": busy,
	}
	for name, looks := range cases {
		t.Run(name, func(t *testing.T) {
			ledger := &Ledger{}
			for _, l := range looks {
				if got := ledger.quiet("acme", "services", l.seen, start.Add(l.at)); got != l.want {
					t.Errorf("after %s with %+v: %t, want %t", l.at, l.seen, got, l.want)
				}
			}
		})
	}
}

// TestNothingMovesWhileItStirs: neither does a namespace give then, nor does it get.
func TestNothingMovesWhileItStirs(t *testing.T) {
	for _, stirs := range []bool{false, true} {
		giver := leaf{name: "a", bounds: []string{"top"}, share: 8, claim: 8, settled: true, stirs: stirs}
		needy := leaf{name: "b", bounds: []string{"top"}, share: 2, claim: 2, used: 2, settled: true}
		if changed := allot([]leaf{giver, needy}, map[string]int64{"top": 10}, 1, 0); (len(changed) > 0) == stirs {
			t.Errorf("the giver stirs %t: %v", stirs, changed)
		}
		giver.stirs, giver.share, giver.claim, needy.stirs = false, 2, 2, stirs
		if _, gets := allot([]leaf{giver, needy}, map[string]int64{"top": 10}, 1, 0)["b"]; gets == stirs {
			t.Errorf("the one in need stirs %t: gets %t", stirs, gets)
		}
	}
}
