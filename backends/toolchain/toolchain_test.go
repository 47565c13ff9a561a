package toolchain

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
)

var unit = []backend.Source{{Name: "a.c", Text: []byte("#include \"a.h\"\nint a(void) { return A; }\n")}, {Name: "a.h", Text: []byte("#define A 3\n")}}

// script makes an executable that stands in for a compiler.
func script(t *testing.T, text string) string {
	t.Helper()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skipf("no shell to stand in for a compiler: %v", err)
	}
	path := filepath.Join(t.TempDir(), "cc")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o777); err != nil {
		t.Fatal(err)
	}
	return path
}

const version = "[ \"$1\" = --version ] && { echo fake 1.0; exit 0; }\n"

func TestCompilersThatDoNotWork(t *testing.T) {
	for _, c := range []struct{ name, cc, says string }{
		{"absent", filepath.Join(t.TempDir(), "none"), "was not found or does not run"},
		{"no version", script(t, "exit 3\n"), "was not found or does not run"},
		{"fails", script(t, version+"echo it broke\nexit 1\n"), "does not work (exit status 1): it broke"},
		{"old", script(t, version+"echo \"cc: error: unrecognized command-line option '-mavx512fp16'\"\nexit 1\n"), "does not know a flag of this CPU: cc: error: unrecognized command-line option '-mavx512fp16'"},
		{"makes nothing", script(t, version+"exit 0\n"), "made no object file"},
		{"links nothing", script(t, version+"while [ $# -gt 1 ]; do [ \"$1\" = -o ] && case \"$2\" in *.o) echo o > \"$2\";; esac; shift; done\n"), "made no library"},
	} {
		t.Setenv("CC", c.cc)
		tmp := t.TempDir()
		t.Setenv("TMPDIR", tmp)
		cc, err := Find("")
		if err == nil {
			err = cc.Build(context.Background(), unit, nil, nil, filepath.Join(t.TempDir(), "a.so"), "")
		}
		if fault.KindOf(err) != fault.Toolchain || !strings.Contains(err.Error(), c.says) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v: %v", c.name, fault.KindOf(err), err)
		}
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("%s: left in TMPDIR: %v %v", c.name, left, err)
		}
	}
	t.Setenv("CC", "")
	t.Setenv("PATH", t.TempDir())
	if _, err := Find(""); fault.KindOf(err) != fault.Toolchain || !strings.Contains(fault.HintOf(err), "--target portable") {
		t.Errorf("without any: %v", err)
	}
}

// A full disk is told as such, and not as a fault of lathe's code.
func TestNoSpaceForTheCompiler(t *testing.T) {
	cc, err := Find(script(t, version+"echo 'a.s: No space left on device'\nexit 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	err = cc.Build(context.Background(), unit, nil, nil, filepath.Join(t.TempDir(), "a.so"), "")
	if fault.KindOf(err) != fault.Usage || !strings.Contains(fault.HintOf(err), "TMPDIR") {
		t.Errorf("%v: %v", fault.KindOf(err), err)
	}
}

func found(t *testing.T) *Compiler {
	t.Helper()
	t.Setenv("CC", "")
	cc, err := Find("")
	if err != nil {
		t.Skip(err)
	}
	return cc
}

// CC may hold arguments, and they count as part of what decides an object.
func TestArgumentsInCC(t *testing.T) {
	found(t)
	t.Setenv("CC", "cc -DA=7")
	cc, err := Find("")
	if err != nil {
		t.Skip(err)
	}
	if cc.Args[0] != "-DA=7" || strings.Contains(cc.Path, " ") {
		t.Errorf("%+v", cc)
	}
}

// A damaged object in the cache is made again, and the build is the same.
func TestDamagedCache(t *testing.T) {
	cc := found(t)
	cache, out := t.TempDir(), filepath.Join(t.TempDir(), "a.so")
	build := func() []byte {
		t.Helper()
		if err := cc.Build(context.Background(), unit, []string{"-fPIC"}, nil, out, cache); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	want := build()
	objs, err := filepath.Glob(filepath.Join(cache, "*", "*"))
	if err != nil || len(objs) != 1 || !strings.HasSuffix(objs[0], ".o") {
		t.Fatalf("in the cache: %v %v", objs, err)
	}
	whole, err := os.ReadFile(objs[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, spoil := range [][]byte{nil, []byte("x"), whole[:len(whole)/2], bytes.Replace(whole, []byte("ELF"), []byte("elf"), 1), make([]byte, 100)} {
		if err := os.WriteFile(objs[0], spoil, 0o666); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(build(), want) {
			t.Errorf("%d bytes in the cache change the library", len(spoil))
		}
		if now, err := os.ReadFile(objs[0]); err != nil || !bytes.Equal(now, whole) {
			t.Errorf("the cache was not repaired after %d bytes", len(spoil))
		}
	}
	// A cache that cannot be written does not matter.
	cache = filepath.Join(out, "below", "a", "file")
	if !bytes.Equal(build(), want) {
		t.Error("the library without a cache differs")
	}
}

// An interrupted build ends at once with all that the compiler started, and
// leaves no temporary.
func TestInterruptedBuild(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process groups")
	}
	tmp, mark := t.TempDir(), filepath.Join(t.TempDir(), "mark")
	t.Setenv("TMPDIR", tmp)
	cc, err := Find(script(t, version+"touch \"$TMPDIR/pass\"\n(sleep 2; touch '"+mark+"') &\ntouch '"+mark+".started'\nwait\n"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if _, err := os.Stat(mark + ".started"); err == nil {
				break
			}
		}
		cancel()
	}()
	start := time.Now()
	err = cc.Build(ctx, unit, nil, nil, filepath.Join(t.TempDir(), "a.so"), "")
	if !errors.Is(err, context.Canceled) || time.Since(start) > 1900*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left in TMPDIR: %v %v", left, err)
	}
	time.Sleep(time.Until(start.Add(2500 * time.Millisecond)))
	if _, err := os.Stat(mark); err == nil {
		t.Error("a pass of the compiler ran on")
	}
}

// For another architecture a compiler is taken that makes code for it, and no
// other: the machine's own would fail on the first flag.
func TestCrossCompilers(t *testing.T) {
	other, machine, mine := "arm64", "aarch64", "x86_64"
	if runtime.GOARCH == "arm64" {
		other, machine, mine = "amd64", "x86_64", "aarch64"
	}
	makes := func(m string) string {
		return script(t, version+"[ \"$1\" = -dumpmachine ] && { echo "+m+"-linux-gnu; exit 0; }\nexit 1\n")
	}
	wrong, right := makes(mine), makes(machine) // while there is a shell
	t.Setenv("CC", "")
	t.Setenv("PATH", filepath.Dir(script(t, "exit 1\n"))) // a cc that does nothing
	if _, err := FindFor(other, ""); fault.KindOf(err) != fault.Toolchain || !strings.Contains(err.Error(), machine) || !strings.Contains(fault.HintOf(err), "apt-get install gcc-") {
		t.Errorf("without any: %v, hint %s", err, fault.HintOf(err))
	}
	if _, err := FindFor(other, wrong); fault.KindOf(err) != fault.Toolchain || !strings.Contains(err.Error(), "does not make code for "+machine) {
		t.Errorf("the machine's own: %v", err)
	}
	t.Setenv("PATH", os.Getenv("PATH")+string(os.PathListSeparator)+"/bin")
	if cc, err := FindFor(other, right); err != nil || cc.Path != right {
		t.Errorf("by name: %+v, %v", cc, err)
	}
	t.Setenv("CC", right)
	if cc, err := FindFor(other, ""); err != nil || cc.Path != right {
		t.Errorf("by CC: %+v, %v", cc, err)
	}
}

// An object depends on the headers that its source includes, also through
// others, and on no other header.
func TestHeadersDecide(t *testing.T) {
	cc := found(t)
	cache, out := t.TempDir(), filepath.Join(t.TempDir(), "a.so")
	objects := func(a, b, other string) int {
		t.Helper()
		srcs := []backend.Source{{Name: "a.c", Text: []byte("#include \"a.h\"\nint a(void) { return A + B; }\n")},
			{Name: "a.h", Text: []byte(" #include \"b.h\"\n#define A " + a + "\n")}, {Name: "b.h", Text: []byte("#define B " + b + "\n")},
			{Name: "other.h", Text: []byte(other)}}
		if err := cc.Build(context.Background(), srcs, []string{"-fPIC"}, nil, out, cache); err != nil {
			t.Fatal(err)
		}
		objs, err := filepath.Glob(filepath.Join(cache, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(objs)
	}
	for _, c := range []struct {
		a, b, other string
		want        int
	}{{"1", "2", "x", 1}, {"1", "2", "y", 1}, {"3", "2", "y", 2}, {"3", "4", "y", 3}, {"1", "2", "x", 3}} {
		if n := objects(c.a, c.b, c.other); n != c.want {
			t.Errorf("%v: %d objects in the cache, want %d", c, n, c.want)
		}
	}
}
