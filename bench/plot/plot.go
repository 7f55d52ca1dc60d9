// Package plot draws the results of the benchmarks as SVG, with nothing but text.
package plot

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

const (
	style = `<style>text{font:12px sans-serif;fill:#24292f}.dim{fill:#57606a}.grid{stroke:#d0d7de}.must{stroke:#cf222e;stroke-dasharray:4 3}</style>`

	barHeight, barGap, groupGap = 11, 2, 10
	nameWidth, valueWidth       = 190, 90
	plotWidth                   = 520
	margin                      = 30
)

// Bar is one value of a group.
type Bar struct {
	// Series is an index into the series of the chart.
	Series int
	// Value is drawn, Label is written behind it.
	Value float64
	Label string
}

// Group is a row of bars that belong together.
type Group struct {
	Name string
	Bars []Bar
}

// Bars are drawn from left to right, on a logarithmic scale, as what is compared
// may differ by a factor of hundred.
type Bars struct {
	Title  string
	Series []string
	Groups []Group
	// Mark is where a line is drawn, with its name.
	Mark     float64
	MarkName string
}

// SVG draws the chart.
func (c Bars) SVG() []byte {
	least, most := c.Mark, c.Mark
	height := 3 * margin
	for _, group := range c.Groups {
		height += len(group.Bars)*(barHeight+barGap) + groupGap
		for _, bar := range group.Bars {
			if bar.Value > 0 {
				least, most = min(least, bar.Value), max(most, bar.Value)
			}
		}
	}
	low, high := math.Log10(least)-0.2, math.Log10(most)+0.05
	x := func(value float64) float64 {
		return nameWidth + plotWidth*min(1, max(0, (math.Log10(max(value, 1e-9))-low)/(high-low)))
	}
	d := newDrawing(nameWidth+plotWidth+valueWidth, height, c.Title)
	d.legend(c.Series, nameWidth)
	y := 2 * margin
	for _, group := range c.Groups {
		top := y
		for _, bar := range group.Bars {
			end := max(x(bar.Value), nameWidth+1)
			d.printf(`<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, nameWidth, y, end-nameWidth, barHeight, color(bar.Series))
			d.text(end+4, float64(y)+barHeight-1, "start", "dim", bar.Label)
			y += barHeight + barGap
		}
		d.text(nameWidth-6, float64(top+y)/2+3, "end", "", group.Name)
		y += groupGap
	}
	d.printf(`<line class="must" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`, x(c.Mark), 2*margin-6, x(c.Mark), y)
	d.text(x(c.Mark), float64(y)+14, "middle", "", c.MarkName)
	return d.end()
}

// Point is one of a line.
type Point struct{ X, Y float64 }

// Panel is a small chart of one line.
type Panel struct {
	Title  string
	Points []Point
	// Mark is a bound, drawn across; 0 is none.
	Mark float64
}

// Panels are charts with the same horizontal axis, two beside each other.
type Panels struct {
	Title string
	// X names the horizontal axis.
	X      string
	Panels []Panel
}

// SVG draws the charts.
func (c Panels) SVG() []byte {
	const width, height = 380, 230
	d := newDrawing(2*width, margin+(len(c.Panels)+1)/2*height, c.Title)
	for i, panel := range c.Panels {
		panel.draw(d, c.X, float64(i%2*width), float64(margin+i/2*height), width, height)
	}
	return d.end()
}

func (p Panel) draw(d *drawing, xName string, left, top, width, height float64) {
	const ticks = 4
	left, right, bottom := left+55, left+width-20, top+height-40
	top += 30
	mostX, mostY := 1e-9, p.Mark
	for _, point := range p.Points {
		mostX, mostY = max(mostX, point.X), max(mostY, point.Y)
	}
	mostY = max(mostY*1.1, 1e-9)
	x := func(v float64) float64 { return left + (right-left)*v/mostX }
	y := func(v float64) float64 { return bottom - (bottom-top)*v/mostY }
	d.text((left+right)/2, top-12, "middle", "", p.Title)
	for i := range ticks + 1 {
		value := mostY * float64(i) / ticks
		d.printf(`<line class="grid" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, left, y(value), right, y(value))
		d.text(left-5, y(value)+4, "end", "dim", short(value))
		d.text(x(mostX*float64(i)/ticks), bottom+15, "middle", "dim", short(mostX*float64(i)/ticks))
	}
	d.text((left+right)/2, bottom+30, "middle", "dim", xName)
	if p.Mark > 0 {
		d.printf(`<line class="must" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, left, y(p.Mark), right, y(p.Mark))
	}
	var line []string
	for _, point := range p.Points {
		line = append(line, fmt.Sprintf("%.1f,%.1f", x(point.X), y(point.Y)))
		d.printf(`<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>`, x(point.X), y(point.Y), color(0))
	}
	d.printf(`<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`, strings.Join(line, " "), color(0))
}

func short(v float64) string {
	if v >= 10 || v == 0 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2g", v)
}

// color of a series; they can also be told apart in grey.
func color(series int) string {
	colors := []string{"#0969da", "#8c959f", "#e16f24", "#1a7f37"}
	return colors[series%len(colors)]
}

type drawing struct{ bytes.Buffer }

func newDrawing(width, height int, title string) *drawing {
	d := &drawing{}
	d.printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">`, width, height, width, height)
	d.printf("<title>%s</title>", escape(title))
	d.printf(style)
	d.printf(`<rect width="%d" height="%d" fill="#ffffff"/>`, width, height)
	d.text(float64(width)/2, 18, "middle", "", title)
	return d
}

func (d *drawing) printf(format string, args ...any) {
	fmt.Fprintf(d, format+"\n", args...)
}

func (d *drawing) text(x, y float64, anchor, class, text string) {
	d.printf(`<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`, x, y, anchor, class, escape(text))
}

func (d *drawing) legend(series []string, x int) {
	for i, name := range series {
		d.printf(`<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`, x, margin+4, barHeight, barHeight, color(i))
		d.text(float64(x+barHeight+4), margin+barHeight+3, "start", "", name)
		x += 40 + 7*len(name)
	}
}

func (d *drawing) end() []byte {
	d.printf("</svg>")
	return slices.Clone(d.Bytes())
}

func escape(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // a buffer takes everything
	return b.String()
}
