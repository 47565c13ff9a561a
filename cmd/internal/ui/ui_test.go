package ui

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestTableForPipesAndPeople(t *testing.T) {
	var out bytes.Buffer
	s := Piped(nil, &out, nil)
	fill := func() {
		tb := s.Table("name", ">n")
		tb.Row("short", "1")
		tb.Row("a longer\tname", "1000")
		tb.Row("evil\x1b[2J")
		tb.Print()
	}
	fill()
	if want := "short\t1\na longer name\t1000\nevil\\x1b[2J\t\n"; out.String() != want {
		t.Errorf("pipe: %q, want %q", out.String(), want)
	}
	out.Reset()
	s.OutTTY = true
	fill()
	want := "" +
		"NAME              N\n" +
		"short             1\n" +
		"a longer name  1000\n" +
		"evil\\x1b[2J\n"
	if out.String() != want {
		t.Errorf("terminal:\n%s\nwant\n%s", out.String(), want)
	}
}

func TestTalk(t *testing.T) {
	var out, err bytes.Buffer
	s := Piped(nil, &out, &err)
	s.Infof("done %d", 1)
	s.Detailf("detail")
	s.Warnf("careful")
	if want := "done 1\nwarning: careful\n"; err.String() != want {
		t.Errorf("%q, want %q", err.String(), want)
	}
	err.Reset()
	s.Quiet, s.Verbose = true, true
	s.Infof("done")
	s.Detailf("detail")
	s.Warnf("careful")
	if want := "warning: careful\n"; err.String() != want {
		t.Errorf("quiet: %q, want %q", err.String(), want)
	}
	if out.Len() > 0 {
		t.Errorf("talk on stdout: %q", out.String())
	}
}

func TestColourOnlyOnTerminals(t *testing.T) {
	s := Piped(nil, nil, nil)
	s.Color = true
	if got := s.Paint(Red, "x"); got != "x" {
		t.Errorf("piped: %q", got)
	}
	s.OutTTY = true
	if got := s.Paint(Red, "x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("terminal: %q", got)
	}
	s.Color = false
	if got := s.Paint(Red, "x"); got != "x" {
		t.Errorf("NO_COLOR: %q", got)
	}
}

func TestJSONKeepsText(t *testing.T) {
	var out bytes.Buffer
	if err := WriteJSON(&out, map[string]string{"a": "<b> & c"}); err != nil {
		t.Fatal(err)
	}
	if want := "{\n  \"a\": \"<b> & c\"\n}\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
}

func TestProgressListensToTerminals(t *testing.T) {
	var err bytes.Buffer
	s := Piped(nil, nil, &err)
	if s.Progress("work", 3) != nil {
		t.Error("a pipe got a progress bar")
	}
	s.ErrTTY, s.CI = true, true
	if s.Progress("work", 3) != nil {
		t.Error("a build log got a progress bar")
	}
	s.CI = false
	p := s.Progress("work", 3)
	p.Add(1)
	p.Done()
	if !strings.Contains(err.String(), "work") {
		t.Errorf("the terminal saw %q", err.String())
	}
	err.Reset()
	s.Mode = ProgressPlain
	p = s.Progress("work", 3)
	p.Add(1)
	p.last = time.Now().Add(-2 * plainEvery)
	p.Add(1)
	p.Describe("more")
	p.Done()
	if want := "work: 2 of 3\nmore: 2 of 3\n"; err.String() != want {
		t.Errorf("plain: %q, want %q", err.String(), want)
	}
	s.Quiet = true
	if s.Progress("work", 3) != nil {
		t.Error("-q shows progress")
	}
}
