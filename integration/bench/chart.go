package main

import (
	"fmt"
	"html"
	"strings"
)

// Sizes of a chart, in pixels.
const (
	chartWidth  = 760
	chartLabel  = 190 // width of the column of names
	chartBar    = 12  // height of a bar
	chartGap    = 10  // between rows
	chartTop    = 40
	chartMargin = 60 // for the figure behind the longest bar
)

// chartColours of the subjects.
var chartColours = map[string]string{"borrownet": "#2a6fbb", "raw-spdy": "#9aa5b1", "raw-ws": "#c8ced6"}

// chart draws the rows that compare subjects: a bar for each, as long as its ratio to raw-spdy. It is "" if there are none.
func chart(res Results) string {
	var rows [][]Row
	longest := 1.0
	for _, r := range res.Rows {
		if r.Ratio == nil || chartColours[r.Subject] == "" {
			continue
		}
		if n := len(rows); n == 0 || rows[n-1][0].ID != r.ID {
			rows = append(rows, nil)
		}
		rows[len(rows)-1] = append(rows[len(rows)-1], r)
		longest = max(longest, *r.Ratio)
	}
	if len(rows) == 0 {
		return ""
	}
	scale := (chartWidth - chartLabel - chartMargin) / longest
	var b strings.Builder
	y := float64(chartTop)
	text := func(x, y float64, s string) {
		fmt.Fprintf(&b, `<text x="%.0f" y="%.0f">%s</text>`+"\n", x, y, html.EscapeString(s))
	}
	for _, row := range rows {
		text(8, y+chartBar, row[0].ID)
		for _, r := range row {
			width := *r.Ratio * scale
			fmt.Fprintf(&b, `<rect x="%d" y="%.0f" width="%.1f" height="%d" fill="%s"/>`+"\n", chartLabel, y, max(width, 1), chartBar-1, chartColours[r.Subject])
			text(chartLabel+width+5, y+chartBar-2, fmt.Sprintf("%.3g %s", r.Value, r.Unit))
			y += chartBar
		}
		y += chartGap
	}
	one := chartLabel + scale
	fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%.0f" stroke="#d33" stroke-dasharray="3 3"/>`+"\n", one, chartTop-6, one, y)
	var head strings.Builder
	fmt.Fprintf(&head, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%.0f" font-family="sans-serif" font-size="11">`+"\n", chartWidth, y+8)
	head.WriteString(`<rect width="100%" height="100%" fill="#fff"/>` + "\n")
	x := 8
	for _, subject := range []string{"borrownet", "raw-spdy", "raw-ws"} {
		fmt.Fprintf(&head, `<rect x="%d" y="10" width="12" height="12" fill="%s"/><text x="%d" y="20">%s</text>`+"\n", x, chartColours[subject], x+16, subject)
		x += 100
	}
	fmt.Fprintf(&head, `<text x="%d" y="20">bars are relative to raw-spdy of the same row, the line is 1</text>`+"\n", x)
	return head.String() + b.String() + "</svg>\n"
}
