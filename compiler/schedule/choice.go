package schedule

import (
	"fmt"
	"strconv"
	"strings"
)

// Choice is how one kernel is made. A zero field is left to the heuristic of
// the kernel's generator.
type Choice struct {
	Form     string // the algorithm: direct, winograd4, rows, …
	OB       int    // register tile: vectors of outputs
	TR, TW   int    // register tile: rows and columns of points
	Rows     int    // rows of work that are done at once
	Prefetch int    // how far ahead weights are fetched, in bytes; 1: not at all
}

// retired are knobs that are no more, with the value that kernels have now. A
// record of that value is read without the knob, one of another value is stale.
var retired = map[string]string{"order": "out"}

// Outdated reports whether a text form sets a retired knob to what no kernel has
// any more.
func Outdated(s string) bool {
	for _, f := range strings.Fields(s) {
		name, val, _ := strings.Cut(f, "=")
		if now, ok := retired[name]; ok && val != now {
			return true
		}
	}
	return false
}

// numbers are the fields that hold numbers, in the order of the text form.
func (c *Choice) numbers() []struct {
	name string
	at   *int
} {
	return []struct {
		name string
		at   *int
	}{{"ob", &c.OB}, {"tr", &c.TR}, {"tw", &c.TW}, {"rows", &c.Rows}, {"prefetch", &c.Prefetch}}
}

// String is the text form: form=direct ob=2 tr=1 tw=14 prefetch=1024.
func (c Choice) String() string {
	var out []string
	if c.Form != "" {
		out = append(out, "form="+c.Form)
	}
	for _, n := range c.numbers() {
		if *n.at != 0 {
			out = append(out, fmt.Sprintf("%s=%d", n.name, *n.at))
		}
	}
	return strings.Join(out, " ")
}

// Parse reads the text form.
func Parse(s string) (Choice, error) {
	var c Choice
fields:
	for _, f := range strings.Fields(s) {
		name, val, ok := strings.Cut(f, "=")
		if !ok {
			return c, fmt.Errorf("schedule %q: %q is not name=value", s, f)
		}
		if name == "form" {
			c.Form = val
			continue
		}
		if now, ok := retired[name]; ok && val == now {
			continue
		}
		for _, n := range c.numbers() {
			if n.name == name {
				v, err := strconv.Atoi(val)
				if err != nil || v < 0 {
					return c, fmt.Errorf("schedule %q: %s is not a size", s, f)
				}
				*n.at = v
				continue fields
			}
		}
		return c, fmt.Errorf("schedule %q: no knob is named %s", s, name)
	}
	return c, nil
}

// Honours reports whether c is what w asks for: every knob that w sets has its
// value in c.
func (c Choice) Honours(w Choice) bool {
	if w.Form != "" && w.Form != c.Form {
		return false
	}
	have := c.numbers()
	for i, n := range w.numbers() {
		if *n.at != 0 && *n.at != *have[i].at {
			return false
		}
	}
	return true
}

// Site is one decision of a program: all kernels of the same structure share it.
type Site struct {
	// Key tells the structure: the op, its shapes and what is fused with it. A
	// record for a key holds wherever the key is the same.
	Key string
	// Chosen is what the program was made with, all knobs of its form filled in.
	Chosen Choice
	// Recorded is set if a record was found and used.
	Recorded bool
	// Space are the neighbours of Chosen that are worth a measurement, the most
	// promising first. It is listed only if lowering was asked to.
	Space []Choice
	// Flops are those of all kernels of the site.
	Flops int64
}

// Lookup gives the recorded choice for a key.
type Lookup func(key string) (Choice, bool)
