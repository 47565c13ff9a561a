// Package toolchain runs a C compiler, with a cache of objects keyed by all
// that decides their bytes.
//
// It must not know what the sources are.
package toolchain

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
)

// Compiler is a C compiler on this machine.
type Compiler struct {
	Path    string
	Args    []string // that come before all others
	Version string   // its first line of --version
}

// Find looks for a C compiler: the given one, $CC, gcc, clang, cc. One that
// was asked for by name or by CC is not replaced by another.
func Find(name string) (*Compiler, error) {
	from := ""
	if name == "" {
		name, from = strings.TrimSpace(os.Getenv("CC")), " of the variable CC"
	}
	if name != "" {
		// As make has it, CC may hold arguments: "ccache gcc".
		if c := try(strings.Fields(name)); c != nil {
			return c, nil
		}
		if c := try([]string{name}); c != nil { // a path with spaces
			return c, nil
		}
		return nil, fault.New(fault.Toolchain, "the C compiler %q%s was not found or does not run", name, from).Hint(install)
	}
	for _, n := range []string{"gcc", "clang", "cc"} {
		if c := try([]string{n}); c != nil {
			return c, nil
		}
	}
	return nil, fault.New(fault.Toolchain, "no C compiler was found").Hint(install)
}

// cross are the C compilers for an architecture on a machine of another one.
var cross = map[string]struct {
	names             []string
	machine, packages string
}{
	"arm64": {[]string{"aarch64-linux-gnu-gcc", "aarch64-unknown-linux-gnu-gcc", "aarch64-linux-musl-gcc"}, "aarch64", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"},
	"amd64": {[]string{"x86_64-linux-gnu-gcc", "x86_64-unknown-linux-gnu-gcc", "x86_64-linux-musl-gcc"}, "x86_64", "gcc-x86-64-linux-gnu libc6-dev-amd64-cross"},
}

// FindFor looks for a C compiler that makes code for an architecture: for this
// machine's as Find does, for another a cross compiler. $CC is taken for it
// only if it makes such code.
func FindFor(arch, name string) (*Compiler, error) {
	c, known := cross[arch]
	if arch == runtime.GOARCH || !known {
		return Find(name)
	}
	if name == "" {
		if cc := try(strings.Fields(cmp.Or(strings.TrimSpace(os.Getenv("CC")), "cc"))); cc != nil && cc.makes(c.machine) {
			return cc, nil
		}
		for _, n := range c.names {
			if cc := try([]string{n}); cc != nil {
				return cc, nil
			}
		}
		return nil, fault.New(fault.Toolchain, "no C compiler for %s was found", c.machine).Hint("install one (Debian: apt-get install %s), or name it with --cc", c.packages)
	}
	cc, err := Find(name)
	if err == nil && !cc.makes(c.machine) {
		return nil, fault.New(fault.Toolchain, "the C compiler %q does not make code for %s", name, c.machine).Hint("install one that does (Debian: apt-get install %s)", c.packages)
	}
	return cc, err
}

// makes reports whether a compiler's code is for a machine.
func (c *Compiler) makes(machine string) bool {
	out, err := exec.Command(c.Path, append(c.Args[:len(c.Args):len(c.Args)], "-dumpmachine")...).Output()
	return err == nil && strings.HasPrefix(string(out), machine+"-")
}

const install = "install gcc or clang (apt-get install gcc), set CC, or use --target portable"

// try gives a command line as a compiler if it answers.
func try(line []string) *Compiler {
	path, err := exec.LookPath(line[0])
	if err != nil {
		return nil
	}
	out, err := exec.Command(path, append(line[1:len(line):len(line)], "--version")...).Output()
	if err != nil {
		return nil
	}
	version, _, _ := strings.Cut(string(out), "\n")
	return &Compiler{Path: path, Args: line[1:], Version: version}
}

// Build compiles C sources, each with flags and its own, and links a shared
// library at out. Objects are
// taken from and put into cache, if it is not "".
func (c *Compiler) Build(ctx context.Context, srcs []backend.Source, flags, libs []string, out, cache string) error {
	dir, err := os.MkdirTemp("", "lathe-build-")
	if err != nil {
		return fault.New(fault.Usage, "cannot make a folder for the build: %w", err).Hint("set TMPDIR to a folder with space")
	}
	defer os.RemoveAll(dir)
	headers := map[string][]byte{}
	var units []backend.Source
	for _, s := range srcs {
		if err := os.WriteFile(filepath.Join(dir, s.Name), s.Text, 0o666); err != nil {
			return fault.New(fault.Usage, "cannot write the sources: %w", err).Hint("set TMPDIR to a folder with space")
		}
		if strings.HasSuffix(s.Name, ".c") {
			units = append(units, s)
		} else {
			headers[s.Name] = s.Text
		}
	}
	objs := make([]string, len(units))
	g, all := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, u := range units {
		objs[i] = filepath.Join(dir, strings.TrimSuffix(u.Name, ".c")+".o")
		own := append(flags[:len(flags):len(flags)], u.Flags...)
		g.Go(func() error { return c.object(all, dir, u, own, headers, objs[i], cache) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	args := append([]string{"-shared", "-Wl,--build-id=none,--as-needed,-z,noseparate-code", "-o", out}, objs...)
	if err := c.run(ctx, dir, append(args, libs...)); err != nil {
		return err
	}
	if _, err := os.Stat(out); err != nil {
		return fault.New(fault.Toolchain, "the C compiler %s made no library", c.Path).Hint(install)
	}
	return nil
}

func (c *Compiler) object(ctx context.Context, dir string, u backend.Source, flags []string, headers map[string][]byte, obj, cache string) error {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%q\n%q\n", c.Version, c.Args, flags)
	contents(h, u.Name, u.Text, headers, map[string]bool{})
	key := hex.EncodeToString(h.Sum(nil))
	kept := filepath.Join(cache, key[:2], key+".o")
	if cache != "" {
		if b := cached(kept); b != nil {
			return write(obj, b)
		}
	}
	// The name in the object is that of the source alone: the same bytes from
	// every folder.
	args := append(append([]string{}, flags...), "-ffile-prefix-map="+dir+"=.", "-c", u.Name, "-o", obj)
	if err := c.run(ctx, dir, args); err != nil {
		return err
	}
	b, err := os.ReadFile(obj)
	if err != nil {
		return fault.New(fault.Toolchain, "the C compiler %s made no object file", c.Path).Hint(install)
	}
	if cache != "" {
		keep(kept, b)
	}
	return nil
}

// contents writes a source and the headers that it includes, each once: a
// header that it does not include says nothing about its object.
func contents(w io.Writer, name string, text []byte, headers map[string][]byte, seen map[string]bool) {
	seen[name] = true
	fmt.Fprintf(w, "%s %d\n%s", name, len(text), text)
	for line := range bytes.Lines(text) {
		rest, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("#include \""))
		if !ok {
			continue
		}
		included, _, _ := bytes.Cut(rest, []byte{'"'})
		if t, ok := headers[string(included)]; ok && !seen[string(included)] {
			contents(w, string(included), t, headers, seen)
		}
	}
}

func write(path string, b []byte) error {
	if err := os.WriteFile(path, b, 0o666); err != nil {
		return fault.New(fault.Usage, "cannot write an object file: %w", err).Hint("set TMPDIR to a folder with space")
	}
	return nil
}

// cached reads an object from the cache; nil if it is not there or not whole:
// a sum stands behind its bytes.
func cached(path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil || len(b) <= sha256.Size {
		return nil
	}
	obj, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if s := sha256.Sum256(obj); !bytes.Equal(s[:], sum) {
		return nil
	}
	return obj
}

// keep puts an object into the cache. A cache that cannot be written is no
// reason to fail a build.
func keep(path string, obj []byte) {
	if os.MkdirAll(filepath.Dir(path), 0o777) != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".object-*")
	if err != nil {
		return
	}
	defer os.Remove(f.Name())
	sum := sha256.Sum256(obj)
	_, err = f.Write(append(obj[:len(obj):len(obj)], sum[:]...))
	if f.Close() == nil && err == nil {
		_ = os.Rename(f.Name(), path)
	}
}

func (c *Compiler) run(ctx context.Context, dir string, args []string) error {
	text, err := c.try(ctx, dir, args)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case strings.Contains(text, "No space left on device"), strings.Contains(text, "File too large"):
		return fault.New(fault.Usage, "the C compiler has no space: %s", text).Hint("set TMPDIR to a folder with space")
	}
	for _, sign := range []string{"unrecognized command-line option", "unknown argument", "unrecognized argument", "bad value", "unsupported argument"} {
		if strings.Contains(text, sign) {
			said, _, _ := strings.Cut(text, "\n")
			return fault.New(fault.Toolchain, "the C compiler %s does not know a flag of this CPU: %s", c.Path, said).
				Hint("use a newer compiler, or --cpu with a level such as x86-64-v3")
		}
	}
	// Who is to blame: a compiler that fails on an empty program is broken.
	probe := filepath.Join(dir, "probe.c")
	if os.WriteFile(probe, []byte("int lathe_probe;\n"), 0o666) != nil {
		return fault.New(fault.Usage, "no space is left for the build in %s", dir).Hint("set TMPDIR to a folder with space")
	}
	if said, err := c.try(ctx, dir, []string{"-c", "probe.c", "-o", "probe.o"}); err != nil {
		return fault.New(fault.Toolchain, "the C compiler %s does not work (%w): %s", c.Path, err, said).Hint(install)
	}
	return fmt.Errorf("the C compiler failed on lathe's own code (%w): %s", err, text)
}

// try runs the compiler and gives what it said. All that it starts ends with
// it, and its temporary files lie in dir.
func (c *Compiler) try(ctx context.Context, dir string, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, c.Path, append(c.Args[:len(c.Args):len(c.Args)], args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TMPDIR="+dir)
	asGroup(cmd)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	text := strings.TrimSpace(out.String())
	if len(text) > 2000 {
		text = text[:2000] + " …"
	}
	return text, err
}
