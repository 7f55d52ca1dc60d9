package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
)

// element is one of an SVG, with the text in it.
type element struct {
	name       string
	attributes map[string]string
	text       string
}

// elements fails when the SVG is not well-formed.
func elements(t *testing.T, svg []byte) []element {
	t.Helper()
	var all []element
	decoder := xml.NewDecoder(strings.NewReader(string(svg)))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("not well-formed: %v\n%s", err, svg)
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := element{name: token.Name.Local, attributes: map[string]string{}}
			for _, attribute := range token.Attr {
				e.attributes[attribute.Name.Local] = attribute.Value
			}
			all = append(all, e)
		case xml.CharData:
			if len(all) > 0 {
				all[len(all)-1].text += strings.TrimSpace(string(token))
			}
		}
	}
}

func (e element) number(t *testing.T, name string) float64 {
	t.Helper()
	value, err := strconv.ParseFloat(e.attributes[name], 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestBars(t *testing.T) {
	chart := Bars{
		Title:    "Sublet & others",
		Series:   []string{"Sublet", "separate"},
		Groups:   []Group{{"a", []Bar{{0, 0.1, "1 s"}, {1, 10, "100 s"}}}, {"b", []Bar{{0, 1, "10 s"}, {1, 0, "nothing"}}}},
		Mark:     1,
		MarkName: "must",
	}
	var bars []float64
	texts := map[string]bool{}
	var mark float64
	for _, e := range elements(t, chart.SVG()) {
		switch {
		case e.name == "rect" && e.attributes["x"] == strconv.Itoa(nameWidth) && e.attributes["y"] != strconv.Itoa(margin+4):
			bars = append(bars, e.number(t, "width"))
		case e.name == "text":
			texts[e.text] = true
		case e.attributes["class"] == "must":
			mark = e.number(t, "x1") - nameWidth
		}
	}
	if len(bars) != 4 || bars[0] >= bars[2] || bars[2] >= bars[1] || bars[3] <= 0 {
		t.Errorf("want four bars of lengths that compare as the values, got %v", bars)
	}
	if bars[2] != mark {
		t.Errorf("the bar of the mark's value ends at %v, the mark is at %v", bars[2], mark)
	}
	for _, want := range []string{"Sublet & others", "separate", "a", "100 s", "must"} {
		if !texts[want] {
			t.Errorf("no text %q", want)
		}
	}
}

func TestPanels(t *testing.T) {
	chart := Panels{Title: "Density", X: "tenants", Panels: []Panel{
		{Title: "one", Points: []Point{{1, 5}, {10, 5}, {100, 10}}, Mark: 20},
		{Title: "nothing"},
	}}
	var heights []float64
	var mark float64
	for _, e := range elements(t, chart.SVG()) {
		switch {
		case e.name == "circle":
			heights = append(heights, e.number(t, "cy"))
		case e.attributes["class"] == "must":
			mark = e.number(t, "y1")
		}
	}
	if len(heights) != 3 || heights[0] != heights[1] || heights[2] >= heights[1] || mark >= heights[2] {
		t.Errorf("want three points, the last above the others and below the mark at %v, got %v", mark, heights)
	}
}
