package engine

import (
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sublet-dev/sublet/syncer/translate"
)

func ref(name string, use func(*translate.Ref)) translate.Ref {
	r := translate.Ref{Kind: schema.GroupKind{Kind: "Secret"}, Namespace: "n", Name: name}
	use(&r)
	return r
}

func synced(r *translate.Ref)  { r.Sync = true }
func watched(r *translate.Ref) { r.Watch = true }

func holder(name string) (request, types.NamespacedName) {
	self := types.NamespacedName{Namespace: "n", Name: name}
	return request{NamespacedName: self}, self
}

func TestIndexSync(t *testing.T) {
	now := time.Unix(1000, 0)
	x := newIndex(func() time.Time { return now })
	secret := ref("s", synced)
	to := targetOf(secret)
	one, oneName := holder("one")
	two, twoName := holder("two")
	check := func(what string, changed []target, wantChanged, wantSynced bool, wantSince time.Time) {
		t.Helper()
		if got := slices.Contains(changed, to); got != wantChanged {
			t.Errorf("%s: told that the target is to be looked at: %v", what, got)
		}
		is, since := x.synced(to)
		if is != wantSynced || !since.Equal(wantSince) {
			t.Errorf("%s: synced %v, unreferenced since %v; want %v, %v", what, is, since, wantSynced, wantSince)
		}
	}
	check("nobody yet", nil, false, false, time.Time{})
	check("first", x.set(one, oneName, []translate.Ref{secret}), true, true, time.Time{})
	check("the same again", x.set(one, oneName, []translate.Ref{secret}), false, true, time.Time{})
	check("second", x.set(two, twoName, []translate.Ref{secret}), false, true, time.Time{})
	check("first goes", x.drop(one), true, true, time.Time{})
	check("second without it", x.set(two, twoName, nil), true, false, now)
	check("second with it again", x.set(two, twoName, []translate.Ref{secret}), true, true, time.Time{})
	check("second goes", x.drop(two), true, false, now)
	x.settled(to)
	check("settled", nil, false, false, time.Time{})
	if len(x.targets)+len(x.holders)+len(x.names)+len(x.unreferenced) > 0 {
		t.Errorf("something is left: %v %v %v %v", x.targets, x.holders, x.names, x.unreferenced)
	}
}

func TestIndexWatch(t *testing.T) {
	x := newIndex(time.Now)
	one, oneName := holder("one")
	all, allName := holder("all")
	x.set(one, oneName, []translate.Ref{ref("s", watched)})
	x.set(all, allName, []translate.Ref{ref("", watched), ref("other", synced)})
	everything, everythingName := holder("everything")
	x.set(everything, everythingName, []translate.Ref{{Kind: schema.GroupKind{Kind: "Pod"}, Watch: true}})
	if got := x.watchers(targetOf(ref("s", watched))); len(got) != 2 {
		t.Errorf("watchers of s: %v", got)
	}
	pod := targetOf(translate.Ref{Kind: schema.GroupKind{Kind: "Pod"}, Namespace: "anywhere", Name: "p"})
	if got := x.watchers(pod); len(got) != 1 || got[0] != everything {
		t.Errorf("watchers of a pod somewhere: %v", got)
	}
	if got := x.watchers(targetOf(ref("other", watched))); len(got) != 1 || got[0] != all {
		t.Errorf("watchers of other: %v", got)
	}
}

func TestIndexNames(t *testing.T) {
	x := newIndex(time.Now)
	one, oneName := holder("one")
	x.set(one, oneName, []translate.Ref{ref("s", synced)})
	for _, name := range []string{"one", "s"} {
		if virtual, ok := x.virtualName(translate.HostName("n", name)); !ok || virtual.Name != name {
			t.Errorf("virtual name of %s: %v, %v", name, virtual, ok)
		}
	}
	x.drop(one)
	if _, ok := x.virtualName(translate.HostName("n", "s")); ok {
		t.Error("a name is known for ever")
	}
}
