package spec

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// PatternError tells that a Python regular expression has no equal in RE2.
type PatternError struct {
	Pattern string
	Feature string // what is not there: "look-ahead assertion", …
}

func (e *PatternError) Error() string {
	return fmt.Sprintf("pattern %q uses a %s, which this tool's matcher does not have", e.Pattern, e.Feature)
}

// CompilePython gives a regular expression that matches as Python's re.match
// does: at the beginning of the text, not necessarily to its end. Constructs
// that RE2 would read differently are rewritten; those that it lacks are
// refused by name.
func CompilePython(pattern string) (*regexp.Regexp, error) {
	return compile(pattern, `\A(?:`, `)`)
}

// CompilePythonSearch matches as Python's re.search and re.sub do: anywhere.
func CompilePythonSearch(pattern string) (*regexp.Regexp, error) { return compile(pattern, "", "") }

func compile(pattern, before, after string) (*regexp.Regexp, error) {
	t := translator{src: pattern}
	out, err := t.run()
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(before + out + after)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return re, nil
}

type translator struct {
	src string
	pos int
	out strings.Builder
	// atom is set when a repetition may follow.
	repeated bool
}

func (t *translator) refuse(feature string) error { return &PatternError{t.src, feature} }

func (t *translator) run() (string, error) {
	for t.pos < len(t.src) {
		c := t.src[t.pos]
		var err error
		switch c {
		case '\\':
			err = t.escape(false)
			t.repeated = false
		case '[':
			err = t.class()
			t.repeated = false
		case '(':
			err = t.group()
			t.repeated = false
		case '*', '+', '?':
			err = t.repeat(c)
		case '{':
			err = t.brace()
		case '$':
			// Without MULTILINE Python's $ also matches before a final newline.
			t.out.WriteString(`(?:\n?\z)`)
			t.pos++
			t.repeated = false
		default:
			t.out.WriteByte(c)
			t.pos++
			t.repeated = false
		}
		if err != nil {
			return "", err
		}
	}
	return t.out.String(), nil
}

func (t *translator) repeat(c byte) error {
	if t.repeated {
		// x*+ and x++ are possessive since Python 3.11; x*? is lazy in both.
		if c == '+' {
			return t.refuse("possessive repetition")
		}
		if c == '*' {
			return t.refuse("doubled repetition")
		}
	}
	t.out.WriteByte(c)
	t.pos++
	t.repeated = true
	return nil
}

// brace reads {m}, {m,}, {,n}, {m,n}; anything else is a literal brace.
func (t *translator) brace() error {
	end := strings.IndexByte(t.src[t.pos:], '}')
	if end > 0 {
		body := t.src[t.pos+1 : t.pos+end]
		lo, hi, comma := strings.Cut(body, ",")
		if digits(lo) && digits(hi) && (lo != "" || comma) {
			if lo == "" {
				lo = "0"
			}
			for _, x := range []string{lo, hi} {
				if n, err := strconv.Atoi(x); x != "" && (err != nil || n > 1000) {
					return t.refuse("repetition of more than 1000")
				}
			}
			t.out.WriteString("{" + lo)
			if comma {
				t.out.WriteString("," + hi)
			}
			t.out.WriteString("}")
			t.pos += end + 1
			t.repeated = true
			return nil
		}
	}
	t.out.WriteString(`\{`)
	t.pos++
	t.repeated = false
	return nil
}

func digits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// groupFeatures are extension groups that RE2 lacks.
var groupFeatures = []struct{ prefix, name string }{
	{"(?=", "look-ahead assertion"}, {"(?!", "negative look-ahead assertion"},
	{"(?<=", "look-behind assertion"}, {"(?<!", "negative look-behind assertion"},
	{"(?>", "atomic group"}, {"(?(", "conditional group"}, {"(?P=", "back-reference"},
}

func (t *translator) group() error {
	rest := t.src[t.pos:]
	for _, f := range groupFeatures {
		if strings.HasPrefix(rest, f.prefix) {
			return t.refuse(f.name)
		}
	}
	switch {
	case strings.HasPrefix(rest, "(?#"):
		end := strings.IndexByte(rest, ')')
		if end < 0 {
			return fmt.Errorf("pattern %q: a comment is not closed", t.src)
		}
		t.pos += end + 1
		return nil
	case strings.HasPrefix(rest, "(?P<"), strings.HasPrefix(rest, "(?:"), !strings.HasPrefix(rest, "(?"):
		t.out.WriteByte('(')
		t.pos++
		if len(rest) > 1 && rest[1] == '?' {
			t.out.WriteByte('?')
			t.pos++
		}
		return nil
	}
	return t.flags(rest)
}

// flags reads (?aiLmsux) and (?i:…).
func (t *translator) flags(rest string) error {
	end := strings.IndexAny(rest, ":)")
	if end < 0 {
		return fmt.Errorf("pattern %q: a group is not closed", t.src)
	}
	keep := ""
	for _, f := range rest[2:end] {
		switch f {
		case 'i', 's', '-':
			keep += string(f)
		case 'a', 'u':
			// ASCII or Unicode classes: parameter names are ASCII.
		case 'x':
			return t.refuse("verbose flag (?x)")
		case 'm':
			return t.refuse("multi-line flag (?m)")
		default:
			return t.refuse(fmt.Sprintf("flag (?%c)", f))
		}
	}
	switch {
	case keep != "" && keep != "-":
		t.out.WriteString("(?" + keep + rest[end:end+1])
	case rest[end] == ':':
		t.out.WriteString("(?:")
	}
	t.pos += end + 1
	return nil
}

// escape copies a backslash sequence. Python's \d, \w, \s are Unicode classes.
func (t *translator) escape(inClass bool) error {
	if t.pos+1 >= len(t.src) {
		return fmt.Errorf("pattern %q ends in a backslash", t.src)
	}
	c := t.src[t.pos+1]
	t.pos += 2
	unicode := map[byte]string{'d': `\p{Nd}`, 'w': `\p{L}\p{N}_`, 's': `\s\v`}
	switch {
	case c == 'd' || c == 's' || c == 'w':
		if s := unicode[c]; inClass || c == 'd' {
			t.out.WriteString(s)
		} else {
			t.out.WriteString("[" + s + "]")
		}
	case c == 'D' || c == 'S' || c == 'W':
		if inClass && c != 'D' {
			return t.refuse("negated class inside a class")
		}
		if c == 'D' {
			t.out.WriteString(`\P{Nd}`)
		} else {
			t.out.WriteString("[^" + unicode[c+'a'-'A'] + "]")
		}
	case c == 'Z' && !inClass:
		t.out.WriteString(`\z`)
	case c == 'A' && !inClass, c == 'B' && !inClass:
		t.out.WriteString(`\` + string(c))
	case c == 'b':
		if inClass {
			t.out.WriteString(`\x08`)
		} else {
			t.out.WriteString(`\b`)
		}
	case c >= '1' && c <= '9' && !inClass:
		return t.refuse("back-reference")
	case c == 'u' || c == 'U':
		return t.codepoint(c)
	case c == 'N':
		return t.refuse("named character")
	case strings.IndexByte("afnrtvx0", c) >= 0:
		t.out.WriteString(`\` + string(c))
	case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9':
		return t.refuse(fmt.Sprintf(`escape \%c`, c))
	case c < 0x80:
		t.out.WriteString(regexp.QuoteMeta(string(c)))
		if inClass && strings.IndexByte(`-&~`, c) >= 0 {
			s := t.out.String()
			t.out.Reset()
			t.out.WriteString(s[:len(s)-1] + `\` + string(c))
		}
	default:
		t.out.WriteByte(c)
	}
	return nil
}

func (t *translator) codepoint(c byte) error {
	n := 4
	if c == 'U' {
		n = 8
	}
	if t.pos+n > len(t.src) {
		return fmt.Errorf("pattern %q: a code point is cut short", t.src)
	}
	t.out.WriteString(`\x{` + t.src[t.pos:t.pos+n] + `}`)
	t.pos += n
	return nil
}

// class copies a bracket expression; in Python "[" inside it is literal.
func (t *translator) class() error {
	t.out.WriteByte('[')
	t.pos++
	if t.pos < len(t.src) && t.src[t.pos] == '^' {
		t.out.WriteByte('^')
		t.pos++
	}
	for first := true; t.pos < len(t.src); first = false {
		switch c := t.src[t.pos]; {
		case c == ']' && !first:
			t.out.WriteByte(']')
			t.pos++
			return nil
		case c == ']', c == '[':
			t.out.WriteString(`\` + string(c))
			t.pos++
		case c == '\\':
			if err := t.escape(true); err != nil {
				return err
			}
		default:
			t.out.WriteByte(c)
			t.pos++
		}
	}
	return fmt.Errorf("pattern %q: a class is not closed", t.src)
}
