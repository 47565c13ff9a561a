package main

import (
	"bytes"
	"strings"
	"testing"
)

// stream is the output of go test -json, shortened.
const stream = `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestX"}
{"Action":"output","Package":"m/a","Test":"TestX","Output":"=== RUN   TestX\n"}
{"Action":"output","Package":"m/a","Test":"TestX","Output":"    a_test.go:7: no shared models: gone\n"}
{"Action":"output","Package":"m/a","Test":"TestX","Output":"--- SKIP: TestX (0.00s)\n"}
{"Action":"skip","Package":"m/a","Test":"TestX","Elapsed":0}
{"Action":"pass","Package":"m/a","Test":"TestY","Elapsed":0}
{"Action":"output","Package":"m/a","Output":"ok  \tm/a\t(cached)\n"}
{"Action":"pass","Package":"m/a","Elapsed":1.5}
{"Action":"skip","Package":"m/none","Elapsed":0}
`

func TestSummary(t *testing.T) {
	var out bytes.Buffer
	s := newSummary(&out)
	s.read(strings.NewReader(stream))
	if !s.finish() {
		t.Error("a stream without failures is not well")
	}
	for _, want := range []string{"ok   m/a ", "1.5s (cached)", "skip m/a TestX: no shared models: gone\n", "1 passed, 0 failed, 1 skipped\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}

func TestSummaryFails(t *testing.T) {
	for name, more := range map[string]string{
		"test":    `{"Action":"output","Package":"m/b","Test":"T","Output":"boom\n"}` + "\n" + `{"Action":"fail","Package":"m/b","Test":"T"}`,
		"package": `{"Action":"output","Package":"m/b","Output":"boom\n"}` + "\n" + `{"Action":"fail","Package":"m/b"}`,
	} {
		var out bytes.Buffer
		s := newSummary(&out)
		s.read(strings.NewReader(stream + more))
		if s.finish() || !strings.Contains(out.String(), "boom") {
			t.Errorf("%s: %s", name, out.String())
		}
	}
	var out bytes.Buffer
	if newSummary(&out).finish() {
		t.Error("a run without any test is well")
	}
}
