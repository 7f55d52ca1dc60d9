package sandbox

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChooseLink(t *testing.T) {
	free, err := ChooseLink("0badc0de", nil)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		taken  []netip.Prefix
		same   bool
		fails  bool
		reason string
	}{
		"nothing taken": {
			same:   true,
			reason: "a host keeps its address",
		},
		"others taken": {
			taken:  []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("172.17.0.0/16")},
			same:   true,
			reason: "those are elsewhere",
		},
		"its own network taken": {
			taken:  []netip.Prefix{free.Node.Masked()},
			reason: "two machines would answer to one address",
		},
		"a larger network taken": {
			taken:  []netip.Prefix{netip.PrefixFrom(free.Node.Addr(), 24).Masked()},
			reason: "it would hide a part of that network",
		},
		"everything taken": {
			taken:  []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			fails:  true,
			reason: "there is nowhere to go",
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := ChooseLink("0badc0de", test.taken)
			if (err != nil) != test.fails {
				t.Fatalf("error %v, but %s", err, test.reason)
			}
			if err != nil {
				return
			}
			if same := got == free; same != test.same {
				t.Errorf("chose %v where %v was chosen when all was free, but %s", got, free, test.reason)
			}
			for _, taken := range test.taken {
				if got.Node.Overlaps(taken) {
					t.Errorf("%v overlaps with %v", got.Node, taken)
				}
			}
		})
	}
}

// FuzzChooseLink holds what a link must be, whatever it is for.
func FuzzChooseLink(f *testing.F) {
	for _, seed := range []string{"", "00000000", "ffffffff", "/some/checkout"} {
		f.Add(seed)
	}
	pods, services := netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/12")
	f.Fuzz(func(t *testing.T, id string) {
		link, err := ChooseLink(id, nil)
		if err != nil {
			t.Fatal(err)
		}
		if link.Machine.Masked() != link.Node.Masked() || link.Machine.Addr() == link.Node.Addr() {
			t.Errorf("%v and %v are not neighbours", link.Machine, link.Node)
		}
		for i := range MaxNodes {
			if address := link.Address(i); !link.Node.Masked().Contains(address) || address == link.Machine.Addr() || address.Next() == link.Node.Masked().Addr() {
				t.Errorf("the address %s of node %d is not one of %s", address, i, link.Node.Masked())
			}
		}
		if !linkRange().Contains(link.Node.Addr()) || link.Node.Overlaps(pods) || link.Node.Overlaps(services) {
			t.Errorf("%v is outside of its range, or in the cluster's", link.Node)
		}
	})
}

func TestIDs(t *testing.T) {
	seen := map[string]string{}
	for _, dir := range []string{"/a/.host", "/b/.host", "/a/.host-2", "/a/.host/"} {
		id := ID(dir)
		if other, taken := seen[id]; taken {
			t.Errorf("%s and %s share %s", dir, other, id)
		}
		seen[id] = dir
		if name := interfaceName(id); len(name) > 15 {
			t.Errorf("Linux takes no interface name as long as %q", name)
		}
	}
	if diff := cmp.Diff(ID("/a/.host"), ID("/a/.host")); diff != "" {
		t.Errorf("an ID changed:\n%s", diff)
	}
}
