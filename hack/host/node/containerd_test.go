//go:build linux

package node

import "testing"

func TestEffectiveCapabilities(t *testing.T) {
	cases := map[string]struct {
		status string
		want   uint64
		fails  bool
	}{
		"all":      {status: "Name:\tinit\nCapPrm:\t0\nCapEff:\t000001ffffffffff\n", want: 1<<41 - 1},
		"none":     {status: "CapEff:\t0000000000000000\n"},
		"untold":   {status: "Name:\tinit\n", fails: true},
		"nonsense": {status: "CapEff:\tmany\n", fails: true},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := effectiveCapabilities(test.status)
			if got != test.want || (err != nil) != test.fails {
				t.Errorf("got %x, %v", got, err)
			}
		})
	}
}
